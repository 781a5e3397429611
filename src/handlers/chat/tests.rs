//! Conversations in a chat: who hears what.

use std::sync::Arc;

use super::{Chat, Rooms, Settings, Slow};
use crate::handler::Handler;
use crate::handlers::rehearsal::{Rehearsal, Stage};
use crate::registry::Registry;

const LOOPBACK: &str = "127.0.0.1:5000";
const INTERNET: &str = "198.51.100.7:5000";

fn chat(settings: Settings) -> Arc<dyn Handler> {
    Arc::new(Chat::new(settings, Arc::new(Rooms::default())).unwrap())
}

/// Somebody who connects, is asked for a nickname and gives it.
async fn enters(chat: &Arc<dyn Handler>, name: &str) -> Rehearsal {
    let mut talk = Rehearsal::from(chat.clone(), Stage::Messages, LOOPBACK);
    assert_eq!(talk.hears().await, "* your nickname, please");
    talk.says(name).await;
    let welcome = talk.hears().await;
    assert!(welcome.starts_with(&format!("* welcome to lobby, {name} (")), "{welcome}");
    talk
}

#[tokio::test]
async fn peers_over_every_transport_meet_in_one_room() {
    let registry = Registry::builtin();
    let service = || registry.handler("chat").unwrap().handler;
    let mut ada = enters(&service(), "ada").await;

    let mut bob = Rehearsal::from(service(), Stage::Datagrams, LOOPBACK);
    bob.says("bob\n").await;
    assert_eq!(bob.hears().await, "* welcome to lobby, bob (2 here)\n");
    assert_eq!(ada.hears().await, "* bob joined lobby (2 here)");

    let mut cy = Rehearsal::from(service(), Stage::Raw, LOOPBACK);
    assert_eq!(cy.hears().await, "* your nickname, please\n");
    cy.says("cy\r\nhello, all\r\n").await;
    assert_eq!(cy.hears().await, "* welcome to lobby, cy (3 here)\n");
    for (who, end) in [(&mut ada, ""), (&mut bob, "\n")] {
        assert_eq!(who.hears().await, format!("* cy joined lobby (3 here){end}"));
        assert_eq!(who.hears().await, format!("<cy> hello, all{end}"));
    }

    bob.falls_silent().await;
    assert_eq!(ada.hears().await, "* bob left lobby (2 here)");
    ada.says("bye, bob").await;
    assert!(cy.hears_until("<ada> bye, bob\n").await.ends_with("* bob left lobby (2 here)\n<ada> bye, bob\n"));
    assert!(ada.hears_nothing_more().await, "nobody hears itself");
}

#[tokio::test]
async fn services_of_another_registry_have_rooms_of_their_own() {
    let service = || Registry::builtin().handler("chat").unwrap().handler;
    let mut ada = enters(&service(), "ada").await;
    enters(&service(), "ada").await;
    assert!(ada.hears_nothing_more().await);
}

#[tokio::test]
async fn a_nickname_is_valid_and_nobody_elses() {
    let chat = chat(Settings::default());
    let _ada = enters(&chat, "ada").await;
    let mut talk = Rehearsal::from(chat, Stage::Messages, LOOPBACK);
    talk.hears().await;
    for (said, heard) in [
        ("two words", "* a nickname has 1 to 24 ASCII letters, digits, - or _"),
        ("ADA", "* somebody is called ADA in lobby already; choose another nickname"),
        ("/who", "* first your nickname, please"),
        ("/here 1234", "* there is no /here; /join ROOM, /who, /quit, /help; //text sends /text"),
        ("bob", "* welcome to lobby, bob (2 here)"),
    ] {
        talk.says(said).await;
        assert_eq!(talk.hears().await, heard);
    }
}

#[tokio::test]
async fn rooms_are_entered_left_and_listed() {
    let chat = chat(Settings::default());
    let mut ada = enters(&chat, "ada").await;
    let mut bob = Rehearsal::from(chat.clone(), Stage::Messages, LOOPBACK);
    bob.hears().await;
    for (said, heard) in [
        ("/join Tea", "* and your nickname, please"),
        ("bob", "* welcome to tea, bob (1 here)"),
        ("/join tea", "* you are in tea already"),
        ("/join <tea>", "* a room's name has 1 to 24 ASCII letters, digits, - or _"),
        ("/join lobby", "* welcome to lobby, bob (2 here)"),
        ("/who", "* 2 in lobby: ada, bob"),
        ("/shout", "* there is no /shout; /join ROOM, /who, /quit, /help; //text sends /text"),
        ("/help", "* /join ROOM, /who, /quit, /help; //text sends /text"),
    ] {
        bob.says(said).await;
        assert_eq!(bob.hears().await, heard);
    }
    bob.says("//quit").await;
    bob.says("/quit").await;
    assert_eq!(bob.hears_the_rest().await, "");
    assert_eq!(ada.hears().await, "* bob joined lobby (2 here)");
    assert_eq!(ada.hears().await, "<bob> /quit");
    assert_eq!(ada.hears().await, "* bob left lobby (1 here)");
}

#[tokio::test]
async fn whoever_is_refused_by_a_room_stays_where_it_was() {
    let chat = chat(Settings { max_rooms: 2, max_members: 1, ..Settings::default() });
    let _ada = enters(&chat, "ada").await;
    let mut bob = Rehearsal::from(chat, Stage::Messages, LOOPBACK);
    bob.hears().await;
    for (said, heard) in [
        ("bob", "* lobby is full: it has 1 members"),
        ("/join tea", "* and your nickname, please"),
        ("bob", "* welcome to tea, bob (1 here)"),
        ("/join coffee", "* there are 2 rooms already, and no more can be opened"),
        ("/join lobby", "* lobby is full: it has 1 members"),
        ("/who", "* 1 in tea: bob"),
    ] {
        bob.says(said).await;
        assert_eq!(bob.hears().await, heard);
    }
}

#[tokio::test]
async fn nothing_that_is_said_looks_like_a_notice_or_another_line() {
    let chat = chat(Settings { max_line: crate::options::Size(40), ..Settings::default() });
    let mut ada = enters(&chat, "ada").await;
    let mut bob = enters(&chat, "bob").await;
    ada.hears().await;
    for (said, heard) in [
        ("* ada left lobby (1 here)", "<bob> * ada left lobby (1 here)"),
        ("<ada> I said that", "<bob> <ada> I said that"),
        ("a\r* ada left\u{2028}* ada left", "<bob> a\u{fffd}* ada left\u{fffd}* ada left"),
        ("\x1b[2J\u{9b}2J", "<bob> \u{fffd}[2J\u{fffd}2J"),
    ] {
        bob.says(said).await;
        assert_eq!(ada.hears().await, heard);
    }
    bob.says("one\n* two").await;
    assert_eq!(ada.hears().await, "<bob> one");
    assert_eq!(ada.hears().await, "<bob> * two");
    bob.says("x".repeat(41)).await;
    assert_eq!(bob.hears().await, "* that line has 41 bytes, and 40 is the most; it was not sent");
    assert!(ada.hears_nothing_more().await);
}

#[tokio::test]
async fn whoever_is_cut_has_left() {
    let chat = chat(Settings::default());
    let mut ada = enters(&chat, "ada").await;
    let mut bob = enters(&chat, "bob").await;
    bob.is_cut();
    assert_eq!(ada.hears().await, "* bob joined lobby (2 here)");
    assert_eq!(ada.hears().await, "* bob left lobby (1 here)");
}

#[tokio::test]
async fn a_slow_reader_delays_nobody_and_is_told_how_much_it_missed() {
    const SAID: usize = 1000;
    let chat = chat(Settings::default());
    let mut slow = enters(&chat, "slow").await;
    let mut quick = enters(&chat, "quick").await;
    let mut loud = enters(&chat, "loud").await;
    quick.hears().await;
    for number in 0..SAID {
        let said = format!("{number} {}", "x".repeat(500));
        loud.says(&said).await;
        assert_eq!(quick.hears().await, format!("<loud> {said}"));
    }

    // It reads on. What it hears and what it is told to have missed is everything, in its order.
    assert_eq!(slow.hears().await, "* quick joined lobby (2 here)");
    assert_eq!(slow.hears().await, "* loud joined lobby (3 here)");
    let mut next = 0;
    let mut missed = 0;
    while next < SAID {
        let heard = slow.hears().await;
        if let Some(number) = heard.strip_prefix("<loud> ") {
            assert!(number.starts_with(&format!("{next} ")), "{next} is due, and this came: {number}");
            next += 1;
        } else {
            let count = heard.strip_prefix("* you read too slowly and missed ").expect(&heard);
            let count: usize = count.split_once(' ').unwrap().0.parse().unwrap();
            next += count;
            missed += count;
        }
    }
    assert!(missed > SAID / 2, "only {missed} were missed: the buffer is not bounded");
    loud.says("and now?").await;
    assert_eq!(slow.hears().await, "<loud> and now?");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_removed_where_that_is_asked_for() {
    let chat = chat(Settings { slow: Slow::Kick, ..Settings::default() });
    let mut slow = enters(&chat, "slow").await;
    let mut loud = enters(&chat, "loud").await;
    let mut said = 0;
    let removed = loop {
        loud.says("x".repeat(1000)).await;
        said += 1;
        if let Some(heard) = loud.hears_at_once().await {
            break heard;
        }
        assert!(said < 1000, "nobody is removed");
    };
    assert_eq!(removed, "* slow was removed: reads too slowly (1 here)");
    let heard = slow.hears_the_rest().await;
    assert!(heard.ends_with("x* you were removed: you read too slowly"), "{}", &heard[heard.len() - 80..]);
    slow.ends().await.unwrap();
    assert!(loud.hears_nothing_more().await, "it left once");
}

#[tokio::test]
async fn a_source_that_may_be_forged_repeats_a_code_before_it_hears_the_room() {
    let chat = chat(Settings::default());
    let mut ada = enters(&chat, "ada").await;
    let mut bob = Rehearsal::from(chat, Stage::Datagrams, INTERNET);
    for malformed in ["* to come in, answer /here 00000000", "/help", "/who", "Hello,bob", "/here 1", "/join <>"] {
        bob.says(malformed).await;
    }
    bob.says("bob").await;
    let challenge = bob.hears().await;
    let code = challenge.strip_prefix("* to come in, answer ").expect(&challenge).to_owned();
    assert!(ada.hears_nothing_more().await);
    bob.says(&code).await;
    assert_eq!(bob.hears().await, "* welcome to lobby, bob (2 here)\n");
    assert_eq!(ada.hears().await, "* bob joined lobby (2 here)");
}

#[tokio::test]
async fn a_code_is_not_guessed() {
    let mut forger = Rehearsal::from(chat(Settings::default()), Stage::Datagrams, INTERNET);
    forger.says("bob").await;
    let challenge = forger.hears().await;
    let code = challenge.trim_end().rsplit_once(' ').unwrap().1.to_owned();
    let wrong = if code == "00000000" { "00000001" } else { "00000000" };
    for _ in 0..2 {
        forger.says(format!("/here {wrong}")).await;
        assert_eq!(forger.hears().await, challenge);
    }
    forger.says(format!("/here {wrong}")).await;
    forger.says(format!("/here {code}")).await;
    forger.says("/quit").await;
    forger.says("bob").await;
    assert!(forger.hears_nothing_more().await, "it had its chances");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |settings| Chat::new(settings, Arc::default()).err().unwrap().to_string();
    assert_eq!(
        refused(Settings { room: "the lobby".into(), ..Settings::default() }),
        "the option `room` takes 1 to 24 ASCII letters, digits, - or _, not `the lobby`"
    );
    assert_eq!(
        refused(Settings { max_members: 0, ..Settings::default() }),
        "the option `max-members` takes a number above 0"
    );
}
