//! The UDP reference on tokio: `recv_from` and `send_to`.

use std::io;

use tokio::net::UdpSocket;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    // As much as greetd asks for; the default loses datagrams under this load.
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
    println!("listening udp://{} handler=reference", socket.local_addr()?);
    let mut buffer = vec![0; 65_536];
    buffer[..6].copy_from_slice(b"Hello,");
    loop {
        let (count, peer) = socket.recv_from(&mut buffer[6..]).await?;
        socket.send_to(&buffer[..6 + count], peer).await?;
    }
}
