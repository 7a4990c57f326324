use crate::fake::Authority;
use crate::{Door, Files, Identity, Keys, Mode, Refreshed, Refused, Stream, Whom, explained, speaks_no_tls};
use rcgen::ExtendedKeyUsagePurpose;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

fn keys_of(authority: &Authority, names: &[&str]) -> Arc<Keys> {
    let own = authority.issue(&names.join("-"), names, |_| {});
    Arc::new(Keys::load(authority.files(Some(own))).expect("they are right"))
}

fn copy(from: &(PathBuf, PathBuf), to: &(PathBuf, PathBuf)) {
    std::fs::copy(&from.0, &to.0).expect("room");
    std::fs::copy(&from.1, &to.1).expect("room");
}

/// Serves one that comes: an echo of one byte, or why it was not let in.
async fn serve(door: Door) -> (SocketAddr, tokio::task::JoinHandle<Result<Option<Arc<Identity>>, Refused>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("it comes");
        let mut stream = door.accept(stream, LONG).await?;
        let byte = stream.read_u8().await.map_err(Refused::Gone)?;
        stream.write_u8(byte).await.map_err(Refused::Gone)?;
        stream.flush().await.map_err(Refused::Gone)?;
        Ok(stream.peer().identity.clone())
    });
    (address, serving)
}

/// Goes there as one that takes it for this host, and has a byte sent back.
async fn visit(keys: &Keys, address: SocketAddr, host: &str) -> io::Result<Stream> {
    let mut stream = keys.connect(TcpStream::connect(address).await?, host).await?;
    stream.write_u8(7).await?;
    stream.flush().await?;
    assert_eq!(stream.read_u8().await?, 7);
    Ok(stream)
}

fn door(keys: &Arc<Keys>, whom: Whom) -> Door {
    Door::new(Arc::clone(keys), Mode::Required, whom)
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("it does not hang")
}

#[tokio::test]
async fn both_ends_learn_who_the_other_one_is() {
    let authority = Authority::new("one");
    let (a, b) = (keys_of(&authority, &["a.svc", "10.0.0.1"]), keys_of(&authority, &["b.svc"]));
    let (address, serving) = serve(door(&a, Whom::Peers)).await;
    for host in ["a.svc", "A.SVC", "a.svc.", "10.0.0.1"] {
        // The first one is served, the others shake hands only.
        if host == "a.svc" {
            let stream = within(visit(&b, address, host)).await.expect("it is let in");
            assert!(stream.peer().is_encrypted);
            let identity = stream.peer().identity.clone().expect("a server shows one");
            assert!(identity.is_valid_for("a.svc") && !identity.is_valid_for("b.svc"));
            assert_eq!(identity.name(), Some("a.svc"));
        } else {
            let (address, serving) = serve(door(&a, Whom::Peers)).await;
            within(visit(&b, address, host)).await.unwrap_or_else(|error| panic!("{host}: {error}"));
            within(serving).await.expect("it ends").expect("it was let in");
        }
    }
    let seen = within(serving).await.expect("it ends").expect("it was let in").expect("it showed one");
    assert!(seen.is_valid_for("b.svc") && seen.is_beneath("svc") && !seen.is_beneath("b.svc"));
}

#[tokio::test]
async fn each_wrong_certificate_is_told_in_words_at_the_end_that_refuses_it() {
    let (authority, other) = (Authority::new("one"), Authority::new("two"));
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    let right = authority.issue("right", &["a.svc"], |_| {});
    let expired = authority.issue("expired", &["a.svc"], |params| params.not_after = (now - 3 * day).into());
    let early = authority.issue("early", &["a.svc"], |params| params.not_before = (now + 3 * day).into());
    let server_only = authority.issue("server", &["a.svc"], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let unknown = other.issue("unknown", &["a.svc"], |_| {});
    // A client that trusts both, so that only what it shows is wrong.
    let load = |own: Option<(PathBuf, PathBuf)>, authorities: &Path| {
        Keys::load(Files { own, authorities: Some(authorities.to_owned()), client_authorities: None })
    };
    let client = Keys::load(authority.files(Some(right.clone()))).expect("right");
    // What the server shows.
    for (own, host, words) in [
        (&expired, "a.svc", "its certificate expired 3 days ago"),
        (&early, "a.svc", "its certificate is not valid before "),
        (&right, "b.svc", "its certificate is not for b.svc but for "),
    ] {
        let keys = Arc::new(load(Some(own.clone()), authority.certificate()).expect("it loads"));
        let (address, serving) = serve(door(&keys, Whom::Clients)).await;
        let error = within(visit(&client, address, host)).await.expect_err(words);
        let told = explained(&error).unwrap_or_else(|| panic!("{error:?}"));
        assert!(told.contains(words), "{told}");
        let refused = within(serving).await.expect("it ends").expect_err("it was refused");
        assert!(matches!(refused, Refused::Handshake(_)), "{refused:?}");
    }
    let strange = Arc::new(load(Some(unknown.clone()), other.certificate()).expect("it loads"));
    let (address, _serving) = serve(door(&strange, Whom::Clients)).await;
    let error = within(visit(&client, address, "a.svc")).await.expect_err("unknown authority");
    assert!(explained(&error).expect("of TLS").contains("no authority that is trusted here"), "{error:?}");
    // What the client shows, if anything.
    let keys = Arc::new(Keys::load(authority.files(Some(right))).expect("right"));
    let shows = |own: Option<&(PathBuf, PathBuf)>| {
        // It trusts the server's authority, whichever its own certificate is of.
        let mut both = std::fs::read(authority.certificate()).expect("it is there");
        both.extend(std::fs::read(other.certificate()).expect("it is there"));
        let path = authority.folder().join("both.crt");
        std::fs::write(&path, both).expect("room");
        load(own.cloned(), &path)
    };
    for (own, by_server, by_client) in [
        (None, "it showed no certificate", "it wants a certificate, and none was shown"),
        (Some(&expired), "its certificate expired 3 days ago", "our certificate has expired"),
        (
            Some(&unknown),
            "no authority that is trusted here",
            "does not trust the authority of our certificate",
        ),
    ] {
        let (address, serving) = serve(door(&keys, Whom::Peers)).await;
        let error =
            within(visit(&shows(own).expect("it loads"), address, "a.svc")).await.expect_err(by_client);
        let told = explained(&error).unwrap_or_else(|| panic!("{by_client}: {error:?}"));
        assert!(told.contains(by_client), "{told}");
        let refused = within(serving).await.expect("it ends").expect_err("it was refused").to_string();
        assert!(refused.contains(by_server), "{refused}");
    }
    let error = shows(Some(&server_only)).expect_err("no client").to_string();
    assert!(error.contains("does not allow clientAuth"), "{error}");
}

#[tokio::test]
async fn clients_may_show_a_certificate_of_their_own_authority_and_need_none() {
    let (authority, of_clients) = (Authority::new("nodes"), Authority::new("clients"));
    let own = authority.issue("a", &["a.svc"], |_| {});
    let files =
        Files { client_authorities: Some(of_clients.certificate().to_owned()), ..authority.files(Some(own)) };
    let keys = Arc::new(Keys::load(files).expect("right"));
    let shop = of_clients.issue("shop", &["shop.example"], |_| {});
    let trusting = |own| Keys::load(Files { own, ..authority.files(None) });
    let nobody = trusting(None).expect("right");
    let (address, serving) = serve(door(&keys, Whom::Clients)).await;
    within(visit(&nobody, address, "a.svc")).await.expect("it is let in");
    assert!(within(serving).await.expect("it ends").expect("let in").is_none());
    // A client does not check what its own certificate is issued by: it may trust other authorities than its server does.
    let files = authority.files(Some(shop));
    let refused =
        Keys::load(files.clone()).map(drop).expect_err("a node would be refused by others").to_string();
    assert!(refused.contains("no certificate in the file of authorities issued it"), "{refused}");
    let shop = Keys::load_for_client(files).expect("right");
    let (address, serving) = serve(door(&keys, Whom::Clients)).await;
    within(visit(&shop, address, "a.svc")).await.expect("it is let in");
    let seen = within(serving).await.expect("it ends").expect("let in").expect("it showed one");
    assert_eq!(seen.name(), Some("shop.example"));
    // It is no node.
    let (address, serving) = serve(door(&keys, Whom::Peers)).await;
    within(visit(&shop, address, "a.svc")).await.expect_err("it is refused");
    let refused = within(serving).await.expect("it ends").expect_err("it was refused").to_string();
    assert!(refused.contains("no authority that is trusted here"), "{refused}");
}

#[tokio::test]
async fn files_that_change_count_for_connections_that_begin_and_the_others_go_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let place = old.issue("a", &["a.svc"], |_| {});
    let keys = Arc::new(Keys::load(old.files(Some(place.clone()))).expect("right"));
    let client = Keys::load(old.files(None)).expect("right");
    assert_eq!(keys.refresh(), Ok(Refreshed::Same));
    let (address, serving) = serve(door(&keys, Whom::Clients)).await;
    let mut open = client
        .connect(TcpStream::connect(address).await.expect("it listens"), "a.svc")
        .await
        .expect("let in");
    // Both authorities overlap, then the certificate is of the new one.
    let mut both = std::fs::read(old.certificate()).expect("it is there");
    both.extend(std::fs::read(new.certificate()).expect("it is there"));
    std::fs::write(old.certificate(), both).expect("room");
    assert_eq!(keys.refresh(), Ok(Refreshed::Changed));
    let issued = new.issue("a", &["a.svc"], |_| {});
    std::fs::copy(&issued.0, &place.0).expect("room");
    let error = keys.refresh().expect_err("the key is still the old one").to_string();
    assert!(error.contains("a.key") && error.contains("it is not the key of the certificate in"), "{error}");
    copy(&issued, &place);
    assert_eq!(keys.refresh(), Ok(Refreshed::Changed));
    assert_eq!(keys.refresh(), Ok(Refreshed::Same));
    let (again, _serving) = serve(door(&keys, Whom::Clients)).await;
    within(visit(&client, again, "a.svc")).await.expect_err("the client knows the old authority alone");
    let (again, _serving) = serve(door(&keys, Whom::Clients)).await;
    assert_eq!(client.refresh(), Ok(Refreshed::Changed));
    within(visit(&client, again, "a.svc")).await.expect("it knows both");
    // The connection that was open is.
    open.write_u8(7).await.expect("it is open");
    assert_eq!(within(open.read_u8()).await.expect("it is open"), 7);
    within(serving).await.expect("it ends").expect("it was served");
}

#[test]
fn a_file_that_is_not_right_is_named_with_what_would_be() {
    let (authority, other) = (Authority::new("one"), Authority::new("two"));
    let right = authority.issue("right", &["a.svc"], |_| {});
    let another = authority.issue("another", &["a.svc"], |_| {});
    let unknown = other.issue("unknown", &["a.svc"], |_| {});
    let empty = authority.folder().join("empty");
    std::fs::write(&empty, "").expect("room");
    let load = |certificate: &Path, key: &Path, authorities: &Path| {
        let own = Some((certificate.to_owned(), key.to_owned()));
        Keys::load(Files { own, authorities: Some(authorities.to_owned()), client_authorities: None })
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let ca = &authority.certificate().to_owned();
    assert_eq!(load(&right.0, &right.1, ca), Ok(()));
    for (certificate, key, authorities, file, words) in [
        (&ca.with_file_name("none"), &right.1, ca, "none", "there is no such file"),
        (&empty, &right.1, ca, "empty", "there is no certificate in it"),
        (&right.1, &right.1, ca, "right.key", "there is no certificate in it"),
        (&right.0, &right.0, ca, "right.crt", "there is no private key in it"),
        (&right.0, &another.1, ca, "another.key", "it is not the key of the certificate in"),
        (&right.0, &right.1, &empty, "empty", "there is no certificate in it"),
        (&unknown.0, &unknown.1, ca, "unknown.crt", "no certificate in the file of authorities issued it"),
    ] {
        let error = load(certificate, key, authorities).expect_err(words);
        assert!(
            error.contains(words) && error.split(':').next().is_some_and(|at| at.ends_with(file)),
            "{error}"
        );
    }
}

#[test]
fn a_certificate_says_who_when_and_beneath_what() {
    let authority = Authority::new("one");
    let day = Duration::from_secs(86_400);
    let names = ["*.demo-headless.shop.svc", "Demo.shop.svc", "10.0.0.7", "fd00::7"];
    let own = authority.issue("a", &names, |params| params.not_after = (SystemTime::now() + 20 * day).into());
    let identity = Keys::load(authority.files(Some(own))).expect("right").identity().expect("its own");
    for (host, is_for) in [
        ("demo-0.demo-headless.shop.svc", true),
        ("a.b.demo-headless.shop.svc", false),
        ("demo-headless.shop.svc", false),
        ("demo.shop.svc", true),
        ("10.0.0.7", true),
        ("10.0.0.8", false),
        ("fd00::7", true),
        ("[fd00::7]", true),
        ("not a name", false),
    ] {
        assert_eq!(identity.is_valid_for(host), is_for, "{host}");
    }
    assert!(identity.is_beneath("demo-headless.shop.svc") && identity.is_beneath("Shop.svc"));
    assert!(!identity.is_beneath("headless.shop.svc") && !identity.is_beneath("svc"));
    let now = SystemTime::now();
    assert_eq!(identity.trouble(now), None);
    assert_eq!(identity.trouble(now + 25 * day).as_deref(), Some("the certificate expired 5 days ago"));
    let left = identity.expires().duration_since(now).expect("it is later");
    assert!(left <= 20 * day && left > 19 * day, "{left:?}");
}

#[tokio::test]
async fn whoever_speaks_without_tls_is_told_in_its_own_protocol_or_let_in_where_it_may() {
    let authority = Authority::new("one");
    let keys = keys_of(&authority, &["a.svc"]);
    for (said, told) in [
        (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], "use https://"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "use https"),
    ] {
        let (address, serving) = serve(door(&keys, Whom::Clients)).await;
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(said).await.expect("it is open");
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.expect("it is told");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains(told), "{answer:?}");
        drop(stream);
        assert!(matches!(within(serving).await.expect("it ends"), Err(Refused::Plain)));
    }
    for door in [Door::new(Arc::clone(&keys), Mode::Optional, Whom::Clients), Door::open()] {
        let (address, serving) = serve(door).await;
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_u8(9).await.expect("it is open");
        assert_eq!(within(stream.read_u8()).await.expect("an echo"), 9);
        assert!(within(serving).await.expect("it ends").expect("let in").is_none());
    }
    let (address, serving) = serve(Door::new(Arc::clone(&keys), Mode::Optional, Whom::Peers)).await;
    within(visit(&keys_of(&authority, &["b.svc"]), address, "a.svc"))
        .await
        .expect("it is let in by TLS, too");
    within(serving).await.expect("it ends").expect("let in");
    // One that speaks no TLS at all.
    let (address, _serving) = serve(Door::open()).await;
    let client = Keys::load(authority.files(None)).expect("right");
    let error = within(client.connect(TcpStream::connect(address).await.expect("it listens"), "a.svc")).await;
    let error = error.expect_err("an echo is no handshake");
    assert!(speaks_no_tls(&error), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_says_nothing_or_stops_within_its_handshake_is_closed() {
    let authority = Authority::new("one");
    let keys = keys_of(&authority, &["a.svc"]);
    for said in [&b""[..], b"\x16\x03\x01"] {
        let (address, serving) = serve(door(&keys, Whom::Clients)).await;
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(said).await.expect("it is open");
        let refused = serving.await.expect("it ends");
        assert!(matches!(refused, Err(Refused::Gone(_))), "{refused:?}");
    }
}
