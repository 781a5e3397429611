//! The TCP reference on tokio, as concrete as it gets: no trait objects, no limits, no clocks.
//!
//!     tokio_tcp raw|lines

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let lines = std::env::args().nth(1).as_deref() == Some("lines");
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening tcp://{} handler=reference", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // A peer that went away ends its own conversation.
            let _ = if lines { serve_lines(stream).await } else { serve_raw(stream).await };
        });
    }
}

async fn serve_raw(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"welcome").await?;
    let mut buffer = *b"Hello ................................................................";
    loop {
        match stream.read(&mut buffer[6..]).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..6 + count]).await?,
        }
    }
}

/// All answers to what one read brings leave in one write.
async fn serve_lines(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"welcome\n").await?;
    let (mut input, mut output) = (Vec::with_capacity(4096), Vec::with_capacity(8192));
    while stream.read_buf(&mut input).await? > 0 {
        let mut rest = &input[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            output.extend_from_slice(b"Hello ");
            output.extend_from_slice(&rest[..=end]);
            rest = &rest[end + 1..];
        }
        let done = input.len() - rest.len();
        input.drain(..done);
        stream.write_all(&output).await?;
        output.clear();
    }
    Ok(())
}
