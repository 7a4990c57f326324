//! Keys, certificates and the token of one Kubernetes: made anew for each, valid nowhere else.

use super::command::write;
use super::control_plane::{ADDRESS, SERVICE_ADDRESS};
use super::error::Error;
use super::state::State;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::os::unix::fs::PermissionsExt;

/// Writes everything below `pki`, and the administrator's `kubeconfig`.
///
/// # Errors
/// [`Error::Io`] for files, [`Error::Strange`] if the library refuses what it is asked for.
pub(super) fn make(state: &State) -> Result<(), Error> {
    let strange = |error: rcgen::Error| Error::Strange { what: "rcgen".to_owned(), text: error.to_string() };

    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "raftqueue-tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority_key = KeyPair::generate().map_err(strange)?;
    write(&state.path("pki/ca.crt"), authority.self_signed(&authority_key).map_err(strange)?.pem())?;
    let issuer = Issuer::new(authority, authority_key);

    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1"];
    let names = names.into_iter().chain([ADDRESS, SERVICE_ADDRESS]).map(str::to_owned).collect::<Vec<_>>();
    let mut server = CertificateParams::new(names).map_err(strange)?;
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    let server_key = KeyPair::generate().map_err(strange)?;
    write(&state.path("pki/api.crt"), server.signed_by(&server_key, &issuer).map_err(strange)?.pem())?;
    write(&state.path("pki/api.key"), server_key.serialize_pem())?;

    // Signs the tokens of service accounts; it is no certificate.
    let accounts = KeyPair::generate().map_err(strange)?;
    write(&state.path("pki/accounts.key"), accounts.serialize_pem())?;
    write(&state.path("pki/accounts.pub"), accounts.public_key_pem())?;

    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| Error::Strange {
        what: "the kernel's random numbers".to_owned(),
        text: error.to_string(),
    })?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    write(&state.path("pki/tokens.csv"), format!("{token},admin,admin,\"system:masters\"\n"))?;
    let kubeconfig = state.path("kubeconfig");
    write(&kubeconfig, self::kubeconfig(&state.text("pki/ca.crt"), &token))?;
    std::fs::set_permissions(&kubeconfig, std::fs::Permissions::from_mode(0o600))
        .map_err(Error::io("protect the kubeconfig"))
}

fn kubeconfig(authority: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\n\
         clusters: [{{name: raftqueue, cluster: {{server: \"https://{ADDRESS}:6443\", certificate-authority: \"{authority}\"}}}}]\n\
         users: [{{name: admin, user: {{token: \"{token}\"}}}}]\n\
         contexts: [{{name: raftqueue, context: {{cluster: raftqueue, user: admin}}}}]\n\
         current-context: raftqueue\n"
    )
}
