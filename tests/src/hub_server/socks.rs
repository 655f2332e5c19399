//! A proxy.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// A SOCKS 5 proxy on loopback that brings whoever asks for `hub.invalid` to `target`, until the test ends.
pub fn socks(target: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, target) = (client.expect("a client"), target.clone());
            std::thread::spawn(move || {
                let mut read = |count: usize| {
                    let mut bytes = vec![0; count];
                    client.read_exact(&mut bytes).expect("a greeting");
                    bytes
                };
                let methods = read(2)[1];
                read(usize::from(methods));
                client.write_all(&[5, 0]).expect("an answer");
                let mut head = [0; 5];
                client.read_exact(&mut head).expect("a request");
                assert_eq!(head[..4], [5, 1, 0, 3], "a connection to a name");
                let mut name = vec![0; usize::from(head[4]) + 2];
                client.read_exact(&mut name).expect("a name and a port");
                assert!(name.starts_with(b"hub.invalid"));
                client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).expect("an answer");
                let server = TcpStream::connect(target).expect("the Hub");
                let (mut from, mut to) = (server.try_clone().expect("a stream"), client.try_clone().expect("a stream"));
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let mut server = server;
                let _ = std::io::copy(&mut client, &mut server);
            });
        }
    });
    port
}
