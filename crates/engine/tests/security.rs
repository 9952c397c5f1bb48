//! Who is let in to the replicas' connections, and who is not.

mod support;

use crane_consensus::Membership;
use crane_consensus::wire::{self, Hello, PROTOCOL_VERSION};
use crane_engine::Engine;
use crane_engine::roster::Roster;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use support::certificates::Authority;
use support::{Cluster, Options, PATIENCE, wait};

/// Certificate and key.
type Identity = (String, String);

fn told(cluster: &Cluster, id: u8, what: &str) {
    let mut heard = Vec::new();
    wait(what, || {
        heard.extend(cluster.events(id));
        let says = |e: &&Value| {
            e["message"]
                .as_str()
                .is_some_and(|text| text.contains(what))
        };
        heard.iter().any(|e| e["kind"] == "warning" && says(&e))
    });
}

fn serves(cluster: &Cluster) {
    let mut client = cluster.connect(1);
    client.write_all(b"undisturbed").unwrap();
    let mut got = [0; 11];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"undisturbed");
}

/// A connection to replica `id` of somebody who has what `identity` says.
fn dial(
    cluster: &Cluster,
    id: u8,
    identity: Option<Identity>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    let ca = cluster.authority.pem();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let name = format!("replica-{id}.{}.crane.internal", cluster.cluster_id);
    let name = ServerName::try_from(name).unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(("127.0.0.1", cluster.peer_port(id))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(tls, socket)
}

/// What a replica says of who takes part.
fn members(cluster: &Cluster) -> Vec<u8> {
    let roster = Roster {
        members: Membership::initial(cluster.ids().into_iter().map(u64::from)),
        ..Roster::default()
    };
    roster.encode()
}

fn hello(cluster: &Cluster, replica: u64, incarnation: u32) -> Vec<u8> {
    let id = u128::from_str_radix(&cluster.cluster_id, 16).unwrap();
    let hello = Hello {
        cluster_id: id.to_be_bytes(),
        replica,
        incarnation,
        protocol: PROTOCOL_VERSION,
        members: members(cluster),
        agreed: Vec::new(),
    };
    let mut bytes = Vec::new();
    wire::encode_hello(&hello, &mut bytes);
    bytes
}

/// Waits for the other side to close.
fn refused(mut stream: impl Read) {
    let mut got = Vec::new();
    // An alert is an end too.
    let _ = stream.read_to_end(&mut got);
}

#[test]
fn without_a_certificate_of_the_cluster_nobody_is_let_in() {
    let cluster = Cluster::start(Options::new(3));
    let mut nobody = dial(&cluster, 1, None);
    let _ = nobody.write_all(&hello(&cluster, 3, 1000));
    refused(nobody);
    told(&cluster, 1, "it has no certificate");
    let foreign = Authority::new().issue(&cluster.cluster_id, 3, 100);
    let mut other = dial(&cluster, 1, Some(foreign));
    let _ = other.write_all(&hello(&cluster, 3, 1000));
    refused(other);
    told(&cluster, 1, "its certificate is not of this cluster");
    let old = cluster.authority.issue(&cluster.cluster_id, 3, 9);
    let mut late = dial(&cluster, 1, Some(old));
    let _ = late.write_all(&hello(&cluster, 3, 1000));
    refused(late);
    told(&cluster, 1, "its certificate's time is over");
    serves(&cluster);
}

#[test]
fn a_certificate_is_good_for_its_own_replica_and_cluster_only() {
    let cluster = Cluster::start(Options::new(3));
    let another = cluster.authority.issue(&cluster.cluster_id, 2, 100);
    let of_another_cluster = cluster.authority.issue(&"e".repeat(32), 2, 100);
    for (claimed, identity) in [(3, another), (2, of_another_cluster)] {
        let mut other = dial(&cluster, 1, Some(identity));
        other.write_all(&hello(&cluster, claimed, 1000)).unwrap();
        refused(other);
        let says = format!("says it is replica {claimed} was refused: its certificate is of");
        told(&cluster, 1, &says);
    }
    serves(&cluster);
}

#[test]
fn plain_text_and_tls_do_not_mix() {
    let mut cluster = Cluster::prepare(Options::new(3));
    for id in [1, 2] {
        cluster.start_one(id);
    }
    cluster.options.tls = false;
    cluster.start_one(3);
    told(&cluster, 1, "what it says is not TLS");
    told(&cluster, 3, "not from a replica");
    assert_eq!(cluster.status(3)["role"], "follower");
    cluster.stop(3);
    cluster.options.tls = true;
    cluster.start_one(3);
    for id in cluster.ids() {
        cluster.wait_listening(id);
    }
    serves(&cluster);
}

#[test]
fn plain_replicas_serve_too() {
    let mut options = Options::new(3);
    options.tls = false;
    let cluster = Cluster::start(options);
    serves(&cluster);
    cluster.wait_same();
}

#[test]
fn an_impostor_who_is_dialled_is_refused() {
    let mut cluster = Cluster::prepare(Options::new(3));
    let mut impostor = Cluster::prepare(Options::new(2));
    impostor.cluster_id = cluster.cluster_id.clone();
    let mut config = impostor.config(1);
    config["peers"]["1"] = format!("127.0.0.1:{}", cluster.peer_port(1)).into();
    let engine = Engine::open(&config.to_string()).unwrap();
    engine.start().unwrap();
    for id in [2, 3] {
        cluster.start_one(id);
    }
    for id in [2, 3] {
        told(
            &cluster,
            id,
            "whoever answers for replica 1 was refused: its certificate is not of",
        );
    }
    engine.stop();
}

#[test]
fn wrong_certificates_of_ones_own_are_named() {
    let cluster = Cluster::prepare(Options::new(3));
    let config = cluster.config(3);
    let open = |config: &Value| {
        let engine = Engine::open(&config.to_string()).unwrap();
        engine.start().unwrap_err().to_string()
    };
    let directory = cluster.log_dir(3).with_file_name("wrong");
    let authority = &cluster.authority;
    for (tls, says) in [
        (
            authority.write(&directory.join("a"), &cluster.cluster_id, 2, 100),
            "of replica 3",
        ),
        (
            authority.write(&directory.join("b"), &cluster.cluster_id, 3, 9),
            "time is over",
        ),
        (
            Authority::new().write(&directory.join("c"), &"a".repeat(32), 3, 100),
            "of replica 3",
        ),
    ] {
        let mut wrong = config.clone();
        wrong["tls"] = tls;
        let error = open(&wrong);
        assert!(
            error.contains(says) && error.contains("node.crt"),
            "{error}"
        );
    }
    let mut wrong = config.clone();
    let good = authority.write(&directory.join("d"), &cluster.cluster_id, 3, 100);
    wrong["tls"] = good.clone();
    wrong["tls"]["ca"] = Authority::new().write(&directory.join("e"), "x", 3, 100)["ca"].clone();
    assert!(open(&wrong).contains("not of this cluster"));
    wrong["tls"] = good.clone();
    wrong["tls"]["key"] = authority.write(&directory.join("f"), "x", 3, 100)["key"].clone();
    let error = open(&wrong);
    assert!(
        error.contains("does not belong to the certificate"),
        "{error}"
    );
    let key = good["key"].as_str().unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(key, readable).unwrap();
    wrong["tls"] = good.clone();
    assert!(open(&wrong).contains("others may read this key"));
    std::fs::remove_file(key).unwrap();
    let error = open(&wrong);
    assert!(
        error.contains("cannot be read") && error.contains("tls = false"),
        "{error}"
    );
}

/// Somebody on the way from a replica to another: keeps what it sends, and
/// changes a byte of it.
struct Eavesdropper {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
    /// Bytes until the one that is changed.
    change: Arc<AtomicUsize>,
}

impl Eavesdropper {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let change = Arc::new(AtomicUsize::new(usize::MAX));
        let (kept, changes) = (heard.clone(), change.clone());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for dialler in listener.incoming() {
                let (Ok(dialler), Ok(other)) = (dialler, TcpStream::connect(("127.0.0.1", port)))
                else {
                    continue;
                };
                let back = (other.try_clone().unwrap(), dialler.try_clone().unwrap());
                std::thread::spawn(move || carry(back.0, back.1, |_| {}));
                let (kept, changes) = (kept.clone(), changes.clone());
                std::thread::spawn(move || {
                    carry(dialler, other, |bytes| {
                        kept.lock().unwrap().extend_from_slice(bytes);
                        let left = changes.load(Ordering::SeqCst);
                        if left < bytes.len() {
                            bytes[left] ^= 1;
                            changes.store(usize::MAX, Ordering::SeqCst);
                        } else if left < usize::MAX {
                            changes.store(left - bytes.len(), Ordering::SeqCst);
                        }
                    });
                });
            }
        });
        Self {
            port: own,
            heard,
            change,
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&mut [u8])) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        look(&mut buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

/// A cluster whose replica 3 reaches replica 1 past somebody.
fn overheard() -> (Cluster, Eavesdropper) {
    let mut cluster = Cluster::prepare(Options::new(3));
    let eavesdropper = Eavesdropper::before(cluster.peer_port(1));
    cluster.detours.push((3, 1, eavesdropper.port));
    for id in cluster.ids() {
        cluster.start_one(id);
    }
    for id in cluster.ids() {
        cluster.wait_listening(id);
    }
    (cluster, eavesdropper)
}

#[test]
fn what_was_said_before_is_worth_nothing_again() {
    let (cluster, eavesdropper) = overheard();
    let mut client = cluster.connect(3);
    client.write_all(b"a secret").unwrap();
    client.read_exact(&mut [0; 8]).unwrap();
    let heard = eavesdropper.heard.lock().unwrap().clone();
    assert!(heard.len() > 1000);
    assert!(!heard.windows(8).any(|bytes| bytes == b"a secret"));
    let mut again = TcpStream::connect(("127.0.0.1", cluster.peer_port(1))).unwrap();
    again.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = again.write_all(&heard);
    refused(again);
    told(&cluster, 1, "or is a repetition");
    serves(&cluster);
    cluster.wait_same();
}

#[test]
fn what_was_changed_on_its_way_ends_the_connection_and_nothing_else() {
    let (cluster, eavesdropper) = overheard();
    let mut client = cluster.connect(3);
    client.write_all(b"before").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    eavesdropper.change.store(100, Ordering::SeqCst);
    let says = "the connection with replica 3 was closed: what it said was changed";
    told(&cluster, 1, says);
    client.write_all(b"after!").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    cluster.wait_same();
}

#[test]
fn a_replica_that_talks_nonsense_is_cut_off() {
    let mut cluster = Cluster::start(Options::new(3));
    cluster.kill(3);
    let mut message = Vec::new();
    let forged = crane_consensus::Message {
        from: 2,
        to: 1,
        ..Default::default()
    };
    wire::encode_raft(&forged, &mut message);
    let frame = |kind, payload: &[u8]| {
        let mut bytes = Vec::new();
        wire::encode(kind, payload, &mut bytes);
        bytes
    };
    let mut damaged = frame(wire::kind::HASHES, b"damaged");
    *damaged.last_mut().unwrap() ^= 1;
    for (number, (sent, says)) in [
        (message, "sent a message in the name of replica 2"),
        (hello(&cluster, 3, 1001), "sent a second greeting"),
        (
            frame(wire::kind::RAFT, b"\xff\xff"),
            "sent a message that cannot be read",
        ),
        (
            frame(wire::kind::GATEWAY, b""),
            "sent a gateway message that cannot be read",
        ),
        (
            frame(wire::kind::HASHES, b"?"),
            "sent hashes that cannot be read",
        ),
        (damaged, "checksum does not match"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not from a replica"),
    ]
    .into_iter()
    .enumerate()
    {
        let identity = cluster.authority.issue(&cluster.cluster_id, 3, 100);
        let mut other = dial(&cluster, 1, Some(identity));
        other
            .write_all(&hello(&cluster, 3, 1001 + number as u32))
            .unwrap();
        other.write_all(&sent).unwrap();
        refused(other);
        told(&cluster, 1, says);
    }
    cluster.start_one(3);
    cluster.wait_listening(3);
    serves(&cluster);
}

#[test]
fn an_earlier_start_of_a_replica_does_not_take_its_place() {
    let cluster = Cluster::start(Options::new(3));
    let identity = cluster.authority.issue(&cluster.cluster_id, 3, 100);
    let mut old = dial(&cluster, 1, Some(identity));
    old.write_all(&hello(&cluster, 3, 0)).unwrap();
    refused(old);
    told(&cluster, 1, "an earlier start of replica 3 was refused");
    serves(&cluster);
    cluster.wait_same();
}

#[test]
fn strangers_who_say_nothing_are_bounded_and_given_up() {
    let mut cluster = Cluster::start(Options::new(3));
    let silent: Vec<_> = (0..70)
        .map(|_| TcpStream::connect(("127.0.0.1", cluster.peer_port(1))).unwrap())
        .collect();
    told(&cluster, 1, "too many others have not said who they are");
    told(&cluster, 1, "it says nothing");
    for mut one in silent {
        one.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(one.read(&mut [0]), Ok(0) | Err(_)));
    }
    cluster.kill(3);
    cluster.start_one(3);
    cluster.wait_listening(3);
    serves(&cluster);
}

#[test]
fn a_peer_address_that_does_not_answer_is_no_reason_to_wait() {
    // A listener that accepts and says nothing must not hold anybody up.
    let mut cluster = Cluster::prepare(Options::new(3));
    let silent = TcpListener::bind(("127.0.0.1", cluster.peer_port(1))).unwrap();
    for id in [2, 3] {
        cluster.start_one(id);
    }
    drop(silent);
    cluster.start_one(1);
    for id in cluster.ids() {
        cluster.wait_listening(id);
    }
    serves(&cluster);
}
