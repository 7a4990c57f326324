//! etcd, the API server, its controllers and the scheduler. This alone is enough to test an operator without pods.

use super::cache::Programs;
use super::command::{Seen, run, wait_for, write};
use super::component::Component;
use super::error::Error;
use super::kubectl::Kubectl;
use super::namespace::Entrance;
use super::state::State;
use std::time::Duration;

/// The address of the API server, of the node and of its name server, on a bridge of the cluster's own network. The API
/// refuses loopback and link-local addresses as endpoints.
pub const ADDRESS: &str = "10.99.0.1";
/// The first address of the service range: the API server, as pods know it.
pub const SERVICE_ADDRESS: &str = "10.96.0.1";
/// The range that service addresses are from.
const SERVICE_RANGE: &str = "10.96.0.0/16";
/// Every call of the operator is written down. A call that was not allowed shows what its role lacks.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
"omitManagedFields": true, "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts:raftqueue-system"]},
{"level": "None"}]}"#;
const STORE: &str = "http://127.0.0.1:2379";
/// How long each part may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The components, in the order of their start.
#[derive(Debug)]
pub struct ControlPlane {
    pub(super) etcd: Component,
    pub(super) api_server: Component,
    pub(super) controller_manager: Component,
    pub(super) scheduler: Component,
}

impl ControlPlane {
    /// Starts them, and returns once the API answers.
    ///
    /// # Errors
    /// [`Error::Ended`] or [`Error::TimedOut`] naming the component.
    pub fn start(
        state: &State,
        entrance: &Entrance,
        programs: &Programs,
        kubectl: &Kubectl,
    ) -> Result<Self, Error> {
        let ip = |arguments: &str| run(entrance.in_network("ip").args(arguments.split(' ')));
        ip("link add rqk0 type bridge")?;
        ip(&format!("addr add {ADDRESS}/24 dev rqk0"))?;
        ip("link set rqk0 up")?;
        // Service addresses need a route before they are translated, and this network has no default route.
        ip(&format!("route add {SERVICE_RANGE} dev rqk0"))?;

        let start = |name, arguments: Vec<String>| {
            Component::start(state, entrance, name, &programs.path(name), arguments)
        };
        write(&state.path("audit-policy.json"), AUDIT_POLICY)?;
        let etcd = start("etcd", etcd_arguments(state))?;
        let api_server = start("kube-apiserver", api_server_arguments(state))?;
        let mut started = (etcd, api_server);
        wait_for("the API server", READY_WITHIN, || {
            started.0.check()?;
            started.1.check()?;
            is_ready(kubectl)
        })?;
        let controller_manager = start("kube-controller-manager", controller_manager_arguments(state))?;
        let kubeconfig = format!("--kubeconfig={}", state.text("kubeconfig"));
        // Now and then it ends when the API server comes back: what it thought of a pod's node was another than what it is told.
        let name = "kube-scheduler";
        let arguments = vec![kubeconfig, "--leader-elect=false".to_owned()];
        let scheduler = Component::supervise(state, entrance, name, &programs.path(name), arguments)?;
        Ok(Self { etcd: started.0, api_server: started.1, controller_manager, scheduler })
    }

    /// Waits until the controllers work too: pods need the account that one of them makes.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub fn wait(&mut self, kubectl: &Kubectl) -> Result<(), Error> {
        wait_for("the default service account", READY_WITHIN, || {
            self.check()?;
            let asked = kubectl.run(&["get", "serviceaccount", "default", "-n", "default"]);
            Ok(asked.map_or_else(|error| Seen::NotYet(error.to_string()), |_| Seen::Done(())))
        })
    }

    /// Kills the API server, starts it again after this time, and returns once it answers.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub fn restart_api_server(&mut self, kubectl: &Kubectl, after: Duration) -> Result<(), Error> {
        self.api_server.kill()?;
        std::thread::sleep(after);
        self.api_server.start_again()?;
        wait_for("the API server", READY_WITHIN, || {
            self.check()?;
            is_ready(kubectl)
        })
    }

    /// Says if one has ended by itself.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn check(&mut self) -> Result<(), Error> {
        let all = [&mut self.etcd, &mut self.api_server, &mut self.controller_manager, &mut self.scheduler];
        all.into_iter().try_for_each(Component::check)
    }

    pub(super) fn forget(self) {
        for component in [self.scheduler, self.controller_manager, self.api_server, self.etcd] {
            component.forget();
        }
    }
}

fn is_ready(kubectl: &Kubectl) -> Result<Seen<()>, Error> {
    let asked = kubectl.run(&["get", "--raw", "/readyz", "--request-timeout=2s"]);
    Ok(asked.map_or_else(|error| Seen::NotYet(error.to_string()), |_| Seen::Done(())))
}

fn etcd_arguments(state: &State) -> Vec<String> {
    vec![
        format!("--data-dir={}", state.text("etcd")),
        format!("--listen-client-urls={STORE}"),
        format!("--advertise-client-urls={STORE}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        // It is never recovered from a crash of the machine.
        "--unsafe-no-fsync=true".to_owned(),
    ]
}

fn api_server_arguments(state: &State) -> Vec<String> {
    vec![
        format!("--etcd-servers={STORE}"),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--allow-privileged=true".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        // As on OpenShift: what the operator may do there is shown here too.
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned(),
        format!("--bind-address={ADDRESS}"),
        format!("--advertise-address={ADDRESS}"),
        "--secure-port=6443".to_owned(),
        format!("--tls-cert-file={}", state.text("pki/api.crt")),
        format!("--tls-private-key-file={}", state.text("pki/api.key")),
        format!("--client-ca-file={}", state.text("pki/ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", state.text("pki/accounts.pub")),
        format!("--service-account-signing-key-file={}", state.text("pki/accounts.key")),
        format!("--token-auth-file={}", state.text("pki/tokens.csv")),
        // For logs, exec and port-forward: the node's name resolves nowhere.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--cert-dir={}", state.text("pki")),
        format!("--audit-policy-file={}", state.text("audit-policy.json")),
        format!("--audit-log-path={}", state.log("audit").display()),
    ]
}

fn controller_manager_arguments(state: &State) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", state.text("kubeconfig")),
        format!("--service-account-private-key-file={}", state.text("pki/accounts.key")),
        format!("--root-ca-file={}", state.text("pki/ca.crt")),
        "--leader-elect=false".to_owned(),
        // Its usual 20 calls a second are for machines that others need too; hundreds of sets would wait for it for many minutes.
        "--kube-api-qps=300".to_owned(),
        "--kube-api-burst=600".to_owned(),
        "--concurrent-statefulset-syncs=20".to_owned(),
        // What an autoscaler makes of an object is not waited for longer than must be.
        "--horizontal-pod-autoscaler-sync-period=2s".to_owned(),
    ]
}
