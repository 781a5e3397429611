//! The client's side of a conversation: the greeting, message and reply in turn, and what still comes.
//!
//! A message waits for the reply to the one before it, since a stream of bytes without framing would let the server
//! see both as one. What comes unasked is shown as it comes, whatever is being waited for.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::replies::Replies;
use super::source::Source;
use crate::cli::failure::Stop;
use crate::error::Error;
use crate::link::Route;
use crate::session::Session;

/// How long a server may take to speak first.
const GREETING_PATIENCE: Duration = Duration::from_millis(200);
/// A piece of a stream that is as long may be a part of a longer reply: so long is waited for the rest.
const LONG_PIECE: usize = 1024;
const PIECE_PATIENCE: Duration = Duration::from_millis(20);

/// How to converse.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    /// There is a connection: the server may speak first, and will end it.
    connected: bool,
    /// What is received may be a piece of a message.
    pieces: bool,
    /// Each message waits for the reply to the one before it.
    in_turn: bool,
    /// How long it waits; without end where it is not said.
    reply_patience: Option<Duration>,
    /// When all of it must be over.
    deadline: Option<Instant>,
}

/// What ended a conversation early.
#[derive(Debug)]
pub(super) enum Break {
    /// The conversation itself.
    Conversation(Broken),
    /// The replies could not be written.
    Output(Stop),
}

/// Why a conversation did not come to its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// The link failed, or the server broke the framing.
    Link(Error),
    /// A message had no reply in time.
    NoReply {
        /// The message.
        to: Vec<u8>,
    },
    /// There was more to say than time.
    OutOfTime,
    /// The server ended the conversation too early.
    Closed {
        /// The first message that it did not get.
        unsent: Vec<u8>,
    },
    /// A message that the framing or the transport cannot carry.
    Unsendable {
        /// The message.
        message: Vec<u8>,
        /// Why.
        why: Error,
    },
    /// The messages could not be read.
    Input(io::Error),
}

impl From<Broken> for Break {
    fn from(broken: Broken) -> Self {
        Break::Conversation(broken)
    }
}

impl From<Error> for Break {
    fn from(error: Error) -> Self {
        Broken::Link(error).into()
    }
}

impl From<Stop> for Break {
    fn from(stop: Stop) -> Self {
        Break::Output(stop)
    }
}

impl Manners {
    /// Message and reply in turn, until the deadline.
    pub(super) fn new(route: &Route, deadline: Option<Instant>) -> Self {
        Manners {
            connected: route.capabilities.connected,
            pieces: !route.keeps_messages,
            in_turn: true,
            reply_patience: None,
            deadline,
        }
    }

    /// Goes on after so long without a reply: what reads from a pipe may talk to a server that seldom answers.
    pub(super) fn waiting_at_most(self, patience: Duration) -> Self {
        Manners { reply_patience: Some(patience), ..self }
    }

    /// Sends whenever there is something to send: people do not wait.
    pub(super) fn at_leisure(self) -> Self {
        Manners { in_turn: false, ..self }
    }
}

/// Converses until both sides have nothing to say any more.
pub(super) async fn converse(
    session: &mut Session,
    source: &mut Source,
    replies: &mut dyn Replies,
    manners: &Manners,
) -> Result<(), Break> {
    let mut state = State { manners: *manners, waiting: None, piece_ends: None, unanswered: None, heard: false };
    let ended = state.run(session, source, replies).await;
    // What came is shown, whatever ended it.
    let shown = if state.piece_ends.is_some() { replies.complete() } else { Ok(()) };
    ended.and(shown.map_err(Break::Output))
}

struct State {
    manners: Manners,
    /// The message that waits for its reply, and until when.
    waiting: Option<(Vec<u8>, Option<Instant>)>,
    /// When the reply that has begun is taken for complete.
    piece_ends: Option<Instant>,
    /// The last message that went without a reply.
    unanswered: Option<Vec<u8>>,
    heard: bool,
}

/// What happened next.
enum Next {
    Came(Option<bytes::Bytes>),
    PieceEnded,
    GaveUpWaiting,
    Deadline,
    ToSend(Option<io::Result<Vec<u8>>>),
}

impl State {
    async fn run(
        &mut self,
        session: &mut Session,
        source: &mut Source,
        replies: &mut dyn Replies,
    ) -> Result<(), Break> {
        let mut sending = true;
        if self.manners.connected && !self.greeting(session, replies).await? {
            return closed(source, replies).await;
        }
        loop {
            let over = !sending && !self.manners.connected && self.waiting.is_none() && self.piece_ends.is_none();
            if over {
                return self.verdict();
            }
            let next = match self.next(session, source, sending).await {
                // Nothing was expected any more: it closed in a hurry.
                Err(error) if error.is_disconnect() && !sending && self.waiting.is_none() => Next::Came(None),
                next => next?,
            };
            match next {
                Next::Came(Some(bytes)) => {
                    self.waiting = None;
                    self.came(&bytes, replies)?;
                }
                Next::Came(None) => return if sending { closed(source, replies).await } else { Ok(()) },
                Next::PieceEnded => {
                    self.piece_ends = None;
                    replies.complete()?;
                }
                Next::GaveUpWaiting => self.unanswered = self.waiting.take().map(|(message, _)| message),
                Next::Deadline => return self.out_of_time(sending),
                Next::ToSend(Some(message)) => {
                    let message = message.map_err(Broken::Input)?;
                    replies.sent(&message);
                    if let Err(error) = session.send(&message).await {
                        return Err(unsent(message, error).into());
                    }
                    if self.manners.in_turn {
                        let until = self.manners.reply_patience.map(|patience| Instant::now() + patience);
                        self.waiting = Some((message, until));
                    }
                }
                Next::ToSend(None) => {
                    sending = false;
                    match session.finish().await {
                        // What it sent before it went is still to be read.
                        Err(error) if error.is_disconnect() => {}
                        finished => finished?,
                    }
                }
            }
        }
    }

    /// Shows what the server says before it is asked; tells whether the conversation goes on.
    async fn greeting(&mut self, session: &mut Session, replies: &mut dyn Replies) -> Result<bool, Break> {
        match timeout_at(Instant::now() + GREETING_PATIENCE, session.recv()).await {
            Ok(Ok(Some(bytes))) => self.came(&bytes, replies).map(|()| true),
            Ok(Ok(None)) => Ok(false),
            Ok(Err(error)) => Err(error.into()),
            // It waits to be spoken to.
            Err(_) => Ok(true),
        }
    }

    async fn next(&mut self, session: &mut Session, source: &mut Source, sending: bool) -> Result<Next, Error> {
        let reply_until = self.waiting.as_ref().and_then(|(_, until)| *until);
        let may_send = sending && self.waiting.is_none() && self.piece_ends.is_none();
        tokio::select! {
            // The deadline holds for a server that never pauses too; then what came is shown before more is sent.
            biased;
            () = at(self.manners.deadline) => Ok(Next::Deadline),
            came = session.recv() => came.map(Next::Came),
            () = at(self.piece_ends) => Ok(Next::PieceEnded),
            () = at(reply_until) => Ok(Next::GaveUpWaiting),
            message = source.next(), if may_send => Ok(Next::ToSend(message)),
        }
    }

    fn came(&mut self, bytes: &[u8], replies: &mut dyn Replies) -> Result<(), Break> {
        self.heard = true;
        replies.piece(bytes)?;
        if self.manners.pieces && bytes.len() >= LONG_PIECE {
            self.piece_ends = Some(Instant::now() + PIECE_PATIENCE);
        } else {
            self.piece_ends = None;
            replies.complete()?;
        }
        Ok(())
    }

    /// A server that was asked everything and keeps the connection open has done what it had to.
    fn out_of_time(&mut self, sending: bool) -> Result<(), Break> {
        match self.waiting.take() {
            Some((to, _)) => Err(Broken::NoReply { to }.into()),
            None if !sending && self.heard => Ok(()),
            None => Err(Broken::OutOfTime.into()),
        }
    }

    /// Datagrams may be lost: it is all well only if none was.
    fn verdict(&mut self) -> Result<(), Break> {
        match self.unanswered.take() {
            Some(to) => Err(Broken::NoReply { to }.into()),
            None => Ok(()),
        }
    }
}

/// The server ended the conversation while there was, or may have been, more to say to it.
async fn closed(source: &mut Source, replies: &mut dyn Replies) -> Result<(), Break> {
    match source.unsent().await {
        Some(unsent) => Err(Broken::Closed { unsent: unsent.map_err(Broken::Input)? }.into()),
        None => Ok(replies.closed_early()?),
    }
}

fn unsent(message: Vec<u8>, why: Error) -> Broken {
    match why {
        Error::Framing(_) | Error::TooLong { .. } => Broken::Unsendable { message, why },
        link => Broken::Link(link),
    }
}

/// Waits until that moment; for ever where there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use crate::address::Address;
    use crate::cli::call::replies::Recorded;
    use crate::framings::raw::Raw;
    use crate::link::{Capabilities, Link, Opened, Peer};

    /// A client over raw bytes, its manners, and the server's end.
    fn client(limit: Option<Duration>) -> (Session, Manners, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let capabilities = Capabilities::BYTES;
        let route = Arc::new(Route { scheme: "test".into(), framing: None, capabilities, keeps_messages: false });
        let manners = Manners::new(&route, limit.map(|limit| Instant::now() + limit));
        let peer = Peer::new(Address::Unnamed, Address::Unnamed, route);
        let opened = Opened { link: Link::Bytes(Box::new(ours)), peer };
        (Session::new(opened, Some(Arc::new(Raw { largest: 1 << 20 }))).unwrap(), manners, theirs)
    }

    fn given(messages: &[&str]) -> Source {
        Source::given(messages.iter().map(|message| message.as_bytes().to_vec()))
    }

    /// Each reply with its message, and the greeting under no message.
    fn heard(recorded: &Recorded) -> Value {
        let facts = recorded.facts();
        let replies = facts["replies"].as_array().unwrap().iter();
        let each: Vec<_> = replies.map(|reply| json!([reply["to"], reply["reply"]])).collect();
        json!([facts["greeting"], each])
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_for_the_reply_to_the_one_before_it() {
        let (mut session, manners, mut server) = client(Some(Duration::from_secs(10)));
        let serve = tokio::spawn(async move {
            for (asked, answer) in [("Genji", "Hello Genji"), ("Hanzo", "Hello Hanzo")] {
                let mut message = [0; 64];
                let length = server.read(&mut message).await.unwrap();
                assert_eq!(&message[..length], asked.as_bytes());
                tokio::time::sleep(Duration::from_secs(2)).await;
                server.write_all(answer.as_bytes()).await.unwrap();
            }
            assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
            server.write_all(b"goodbye").await.unwrap();
        });
        let mut recorded = Recorded::default();
        converse(&mut session, &mut given(&["Genji", "Hanzo"]), &mut recorded, &manners).await.unwrap();
        let expected = json!([["Genji", "Hello Genji"], ["Hanzo", "Hello Hanzo"], ["Hanzo", "goodbye"]]);
        assert_eq!(heard(&recorded), json!([null, expected]));
        serve.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_greeting_is_waited_for_no_longer_than_200_ms() {
        for (delay, greeting, first) in
            [(150, json!("welcome"), json!([])), (250, json!(null), json!([["Genji", "welcome"]]))]
        {
            let (mut session, manners, mut server) = client(Some(Duration::from_secs(1)));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                server.write_all(b"welcome").await.unwrap();
                server.read_to_end(&mut Vec::new()).await.unwrap();
            });
            let mut recorded = Recorded::default();
            let _ = converse(&mut session, &mut given(&["Genji"]), &mut recorded, &manners).await;
            assert_eq!(heard(&recorded), json!([greeting, first]), "after {delay} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_replies_costs_the_time_that_there_is() {
        let (mut session, manners, _server) = client(Some(Duration::from_secs(3)));
        let began = Instant::now();
        let ended = converse(&mut session, &mut given(&["Genji"]), &mut Recorded::default(), &manners).await;
        let broke = matches!(ended, Err(Break::Conversation(Broken::NoReply { to })) if to == b"Genji");
        assert!(broke);
        assert_eq!(began.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_keeps_the_connection_open_has_done_what_it_had_to() {
        let (mut session, manners, mut server) = client(Some(Duration::from_secs(3)));
        let serve = tokio::spawn(async move {
            server.read_exact(&mut [0; 5]).await.unwrap();
            server.write_all(b"Hello").await.unwrap();
            server
        });
        converse(&mut session, &mut given(&["Genji"]), &mut Recorded::default(), &manners).await.unwrap();
        drop(serve.await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_from_a_pipe_goes_on_after_a_while_without_a_reply() {
        let (mut session, manners, mut server) = client(None);
        let manners = manners.waiting_at_most(Duration::from_secs(5));
        let serve = tokio::spawn(async move {
            let mut all = String::new();
            server.read_to_string(&mut all).await.unwrap();
            all
        });
        let began = Instant::now();
        converse(&mut session, &mut given(&["a", "b"]), &mut Recorded::default(), &manners).await.unwrap();
        assert_eq!(serve.await.unwrap(), "ab");
        assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_reply_in_pieces_is_one_reply() {
        let (mut session, manners, mut server) = client(Some(Duration::from_secs(3)));
        tokio::spawn(async move {
            server.read_exact(&mut [0; 1]).await.unwrap();
            for _ in 0..3 {
                server.write_all(&[b'x'; LONG_PIECE]).await.unwrap();
                tokio::time::sleep(PIECE_PATIENCE / 2).await;
            }
            server.write_all(b"end").await.unwrap();
        });
        let mut recorded = Recorded::default();
        converse(&mut session, &mut given(&["?"]), &mut recorded, &manners).await.unwrap();
        let reply = "x".repeat(3 * LONG_PIECE) + "end";
        assert_eq!(heard(&recorded), json!([null, [["?", reply]]]));
    }
}
