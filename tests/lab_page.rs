//! The lab's page in a real browser: cells show their evidence by mouse and by keyboard, and no width overflows.

#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Stdio};

use greetd::lab::{Experiment, Ground, Topology, report};

/// What the page is put through; the last word goes into the title, where the test reads it.
const CHECKS: &str = r#"<script>
(() => {
  const say = (word) => { document.title = `checked: ${word}`; };
  const panel = document.getElementById("evidence");
  const cells = [...document.querySelectorAll("button[data-case]")];
  if (document.documentElement.scrollWidth > window.innerWidth) return say("the page is wider than its window");
  if (!panel.hidden) return say("the panel is open from the start");
  cells[0].click();
  if (panel.hidden || !panel.textContent.includes("address-matches")) return say("a click shows no rule");
  cells[0].focus();
  cells[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  if (document.activeElement !== cells[1]) return say("an arrow key does not move to the next cell");
  if (!panel.textContent.includes("other-address")) return say("the panel does not follow the focus");
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  if (!panel.hidden) return say("escape does not close the panel");
  if (cells.some((cell) => !cell.getAttribute("aria-label"))) return say("a cell has no name");
  if ([...document.querySelectorAll("svg[role=img]")].some((one) => !one.querySelector("title"))) return say("a drawing has no name");
  if ([...document.querySelectorAll("button")].some((one) => !one.getAttribute("aria-label") && !one.textContent)) return say("a button has no name");
  const stamp = document.querySelector("button[data-table]");
  stamp.click();
  const pairs = [...panel.querySelectorAll("button[data-case]")];
  if (panel.hidden || pairs.length !== 81) return say("a stamp does not open its table");
  pairs[80].click();
  if (!panel.textContent.includes("2001:db8:1::1, then 2001:db8:1::1")) return say("a pair behind a stamp shows no case");
  if (!panel.querySelector(".matrix table")) return say("the table goes when a pair of it is chosen");
  if (document.documentElement.scrollWidth > window.innerWidth) return say("the open panel is wider than the window");
  panel.querySelector(".close").click();
  if (!panel.hidden || document.activeElement !== stamp) return say("closing does not lead back to the stamp");
  for (const figure of document.querySelectorAll("svg[role=img]")) {
    const [, , width, height] = figure.getAttribute("viewBox").split(" ").map(Number);
    for (const text of figure.querySelectorAll("text")) {
      const box = text.getBBox();
      if (box.x < 0 || box.y < 0 || box.x + box.width > width || box.y + box.height > height) {
        return say(`"${text.textContent}" leaves its drawing ${figure.querySelector("title").textContent}`);
      }
    }
  }
  say("all is well");
})();
</script></body>"#;

#[test]
fn the_page_works_in_a_browser_of_any_width() {
    let Some(browser) = browser() else {
        assert!(std::env::var_os("GREETD_REQUIRE_TOOLS").is_none(), "no Chromium is installed");
        eprintln!("left out: no Chromium is installed");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // What has run has counts and calls to show; where nothing may run, the prediction is a page as well.
    let reports: Vec<_> = Experiment::ALL
        .iter()
        .map(|experiment| match Topology::new() {
            Ok(topology) => experiment.run(&Ground::Private(topology)).unwrap(),
            Err(_) => experiment.predict(),
        })
        .collect();
    let page = folder.path().join("page.html");
    std::fs::write(&page, report::as_html(&reports).replace("</body>", CHECKS)).unwrap();
    for width in [360, 1024, 1920] {
        let output = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg(format!("--window-size={width},900"))
            .arg(format!("file://{}", page.display()))
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let dom = String::from_utf8_lossy(&output.stdout);
        let said = dom.split_once("<title>checked: ").and_then(|(_, rest)| rest.split_once("</title>"));
        assert_eq!(said.map(|(word, _)| word), Some("all is well"), "at {width} pixels");
    }
}

fn browser() -> Option<&'static str> {
    let known = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var("PATH").unwrap_or_default();
    known.into_iter().find(|name| path.split(':').any(|folder| Path::new(folder).join(name).is_file()))
}
