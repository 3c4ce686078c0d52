//! Models are reached over TLS, and only those whose certificate is theirs.

use std::io::Write as _;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_util::task::AbortOnDropHandle;

use crate::model::{Puppet, STARTED, begin, end, event};
use crate::world::{KEY, Kind, World, next, tokens};

crate::under_both!(
    a_model_is_reached_over_tls_when_the_profile_trusts_who_signed_its_certificate,
    a_model_whose_certificate_nobody_vouches_for_or_is_not_its_own_hears_nothing
);

const ASK: &str = r#"{"model":"claude-x","stream":true}"#;

/// What ends TLS before a model.
struct Front {
    url: String,
    /// Who signed its certificate: itself.
    authority: tempfile::NamedTempFile,
    _server: AbortOnDropHandle<()>,
}

impl Front {
    /// With a certificate for `name`.
    async fn start(puppet: &Puppet, name: &str) -> Self {
        let signed = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let mut authority = tempfile::NamedTempFile::new().unwrap();
        authority.write_all(signed.cert.pem().as_bytes()).unwrap();
        let tls = ServerConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.into()], signed.signing_key.into())
            .unwrap();
        let (tls, model) = (TlsAcceptor::from(Arc::new(tls)), puppet.url.strip_prefix("http://").unwrap().to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, model) = (tls.clone(), model.clone());
                tokio::spawn(async move {
                    // A client that does not trust it hangs up.
                    let Ok(mut stream) = tls.accept(stream).await else { return };
                    let mut model = TcpStream::connect(model).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut model).await; // However it ended, it has.
                });
            }
        });
        Self { url, authority, _server: AbortOnDropHandle::new(server) }
    }

    /// A world whose agents have their model there. `trusted`: by the authority that signed for it.
    async fn world(&self, kind: Kind, trusted: bool) -> World {
        let trust = format!("ca_file = '{}'", self.authority.path().display());
        let trust = if trusted { trust.as_str() } else { "" };
        let profile = format!("[model_api]\nkind = 'anthropic'\nurl = '{}'\n{trust}", self.url);
        World::with(kind, &profile, Arc::new(streamgate::proxy::Internet)).await
    }
}

async fn a_model_is_reached_over_tls_when_the_profile_trusts_who_signed_its_certificate(kind: Kind) {
    let puppet = Puppet::start().await;
    let front = Front::start(&puppet, "localhost").await;
    let world = front.world(kind, true).await;
    let (mut shell, mut channel) = world.start().await;
    for _ in 0..2 {
        shell.send("POST /v1/messages", ASK).await;
        let (asked, mut stream) = puppet.asked().await;
        assert!(asked.contains(KEY), "{asked}");
        begin(&mut stream).await;
        event(&mut stream, STARTED).await;
        shell.until("message_start").await;
        event(&mut stream, r#"{"type":"message_delta","usage":{"output_tokens":30}}"#).await;
        end(&mut stream).await;
        shell.until("<end>").await;
        assert_eq!(tokens(&next(&mut channel).await), "claude-x 50 30 7 0");
    }
}

async fn a_model_whose_certificate_nobody_vouches_for_or_is_not_its_own_hears_nothing(kind: Kind) {
    let puppet = Puppet::start().await;
    for (name, trusted) in [("localhost", false), ("other.example", true)] {
        let front = Front::start(&puppet, name).await;
        let world = front.world(kind, trusted).await;
        let (mut shell, _channel) = world.start().await;
        let answer = shell.ask("POST /v1/messages", ASK).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{name}: {answer}");
        assert!(answer.contains("the model can't be reached"), "{name}: {answer}");
        assert_eq!(world.metric(r#"model_requests_total{outcome="unreachable"}"#), 1);
    }
    assert!(puppet.is_alone(), "somebody came through");
}
