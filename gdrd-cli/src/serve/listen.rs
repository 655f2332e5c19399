//! Sockets: TLS, bounds of time and number, and the end.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use gdrd_core::error::{Error, Result};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tower_http::normalize_path::NormalizePath;

/// What a listener needs to know.
pub(super) struct Listening {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) connections: usize,
    /// How long a head may take to come in, and how long a connection may be silent.
    pub(super) time: Duration,
}

/// Bytes of a request's head at most.
const HEAD: usize = 64 << 10;

/// TLS by a certificate chain and its key, both PEM files.
pub(super) fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| Error::data(format!("`{}`: {why}", path.display()));
    let chain =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| wrong(certificate, &format!("expected certificates in PEM: {e}")))?;
    if chain.is_empty() {
        return Err(wrong(certificate, &"expected certificates in PEM, found none"));
    }
    let secret = PrivateKeyDer::from_pem_file(key);
    let secret = secret.map_err(|e| wrong(key, &format!("expected a private key in PEM: {e}")))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map(|config| config.with_no_client_auth().with_single_cert(chain, secret));
    let mut config = config.and_then(|config| config).map_err(|e| wrong(certificate, &format!("with its key: {e}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Listening {
    /// Answers until `stop`, then lets what was begun come to its end, for as long as a request may take.
    pub(super) async fn run(self, app: Router, stop: impl Future<Output = ()>) -> Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(|e| Error::io("the listener", e))?;
        // `/subjects/` is `/subjects`.
        let app = TowerToHyperService::new(NormalizePath::trim_trailing_slash(app));
        let (room, graceful) = (Arc::new(Semaphore::new(self.connections)), GracefulShutdown::new());
        tokio::pin!(stop);
        loop {
            let accepted = async {
                let permit = room.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                () = &mut stop => break,
                accepted = accepted => accepted,
            };
            let Ok((socket, _)) = accepted else {
                // Too many open files, most likely: some will be closed.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (app, tls, time, watcher) = (app.clone(), self.tls.clone(), self.time, graceful.watcher());
            tokio::spawn(async move {
                let _room = permit;
                // What goes wrong with a connection is its client's to notice.
                let _ = socket.set_nodelay(true);
                let socket = timed(socket, time);
                match tls {
                    None => answer(socket, app, time, watcher).await,
                    Some(tls) => {
                        if let Ok(Ok(socket)) = tokio::time::timeout(time, tls.accept(socket)).await {
                            answer(Box::pin(socket), app, time, watcher).await;
                        }
                    }
                }
            });
        }
        drop(listener);
        let _ = tokio::time::timeout(self.time, graceful.shutdown()).await;
        Ok(())
    }
}

/// A socket that gives up when the other side is silent, or takes nothing.
fn timed(socket: TcpStream, time: Duration) -> std::pin::Pin<Box<TimeoutStream<TcpStream>>> {
    let mut socket = TimeoutStream::new(socket);
    // Longer than a head or a body may take, so that who is too slow for these is told.
    socket.set_read_timeout(Some(2 * time));
    socket.set_write_timeout(Some(2 * time));
    Box::pin(socket)
}

type App = TowerToHyperService<NormalizePath<Router>>;

async fn answer(socket: impl AsyncRead + AsyncWrite + Unpin + 'static, app: App, time: Duration, watcher: Watcher) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(time).max_buf_size(HEAD);
    // A connection that breaks off is no fault of the server.
    let _ = watcher.watch(http.serve_connection(TokioIo::new(socket), app)).await;
}
