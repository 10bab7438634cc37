//! Settings: where they come from, which are refused, and that secrets stay hidden.

use std::path::Path;

use super::secrets::Secret;
use super::*;

fn no_environment() -> Vec<(String, String)> {
    Vec::new()
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn load_from<T: Settings>(
    file: Option<&Path>,
    environment: Vec<(String, String)>,
    flags: Vec<Override>,
) -> anyhow::Result<T> {
    load::load_from(file, environment, flags)
}

fn problem<T: Settings>(result: anyhow::Result<T>) -> String {
    match result {
        Ok(_) => panic!("the settings were taken"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn each_source_goes_before_the_one_below_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        &folder,
        "a.toml",
        "[gateway]\nlisten = '1.1.1.1:1'\nregion = 'file'\n[admin]\nlisten='1.1.1.1:2'",
    );
    let with =
        |environment, flags| load_from::<GatewaySettings>(Some(&path), environment, flags).unwrap();

    let defaults: GatewaySettings = load_from(None, no_environment(), Vec::new()).unwrap();
    assert_eq!(defaults.gateway.listen.port(), 7880);
    assert_eq!(defaults.gateway.control_plane_urls, ["http://127.0.0.1:7890"]);

    let from_file = with(no_environment(), Vec::new());
    assert_eq!(from_file.gateway.listen.to_string(), "1.1.1.1:1");
    assert_eq!(from_file.gateway.control_plane_urls, ["http://127.0.0.1:7890"], "the rest stays");

    let variables = environment(&[("HEADWATER_GATEWAY__LISTEN", "2.2.2.2:2"), ("OTHER", "x")]);
    let from_environment = with(variables.clone(), Vec::new());
    assert_eq!(from_environment.gateway.listen.to_string(), "2.2.2.2:2");
    assert_eq!(from_environment.gateway.region, "file");

    let flag = Override::new("--listen", "gateway.listen", "3.3.3.3:3");
    let from_flag = with(variables, vec![flag]);
    assert_eq!(from_flag.gateway.listen.to_string(), "3.3.3.3:3");
    assert_eq!(from_flag.admin.listen.to_string(), "1.1.1.1:2");
}

#[test]
fn yaml_does_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        &folder,
        "a.yaml",
        "gateway:\n  region: north\n  limits:\n    sessions_max: 7\nkeys:\n  APIabc: [one, two]\n",
    );
    let settings: GatewaySettings = load_from(Some(&path), no_environment(), Vec::new()).unwrap();
    assert_eq!(
        (settings.gateway.region.as_str(), settings.gateway.limits.sessions_max),
        ("north", 7)
    );
    assert_eq!(settings.keys.ring(None, None).unwrap().first_key(), "APIabc");
}

#[test]
fn an_unknown_setting_is_named_with_its_place_and_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "node.toml", "[media_node]\nudp_prot = 7");
    let shown = problem(load_from::<MediaNodeSettings>(Some(&path), no_environment(), Vec::new()));
    assert!(shown.contains("file ") && shown.contains("node.toml"), "{shown}");
    assert!(shown.contains("`media_node.udp_prot` is not known"), "{shown}");
    assert!(shown.contains("udp_port") && shown.contains("advertise_ips"), "{shown}");
    assert!(shown.contains("settings of media-node"), "{shown}");

    let path = file(&folder, "top.toml", "gatewya = 1");
    let shown = problem(load_from::<GatewaySettings>(Some(&path), no_environment(), Vec::new()));
    assert!(shown.contains("`gatewya` is not known") && shown.contains("telemetry"), "{shown}");

    let variables = environment(&[("HEADWATER_GATEWAY__LITSEN", "x")]);
    let shown = problem(load_from::<GatewaySettings>(None, variables, Vec::new()));
    assert!(shown.contains("environment variable HEADWATER_GATEWAY__LITSEN"), "{shown}");

    let flag = vec![Override::new("--set", "registry.etcd.endpoint", "x")];
    let shown = problem(load_from::<ControlPlaneSettings>(None, no_environment(), flag));
    assert!(shown.contains("flag --set") && shown.contains("`registry.etcd.endpoint`"), "{shown}");
    assert!(shown.contains("endpoints"), "{shown}");
}

#[test]
fn a_setting_of_another_role_is_refused() {
    let variables = environment(&[("HEADWATER_REGISTRY__KIND", "memory")]);
    let shown = problem(load_from::<GatewaySettings>(None, variables, Vec::new()));
    assert!(shown.contains("`registry` is not known"), "{shown}");
}

#[test]
fn a_value_that_cannot_be_used_is_named_but_not_shown() {
    let variables = environment(&[("HEADWATER_GATEWAY__LISTEN", "hunter2")]);
    let shown = problem(load_from::<GatewaySettings>(None, variables, Vec::new()));
    assert!(shown.contains("HEADWATER_GATEWAY__LISTEN"), "{shown}");
    assert!(shown.contains("`gateway.listen`"), "{shown}");

    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "a.toml", "[keys]\ndevkey = 12345678");
    let shown = problem(load_from::<GatewaySettings>(Some(&path), no_environment(), Vec::new()));
    assert!(shown.contains("`keys.devkey` must be a secret in quotes"), "{shown}");
    assert!(!shown.contains("12345678"), "{shown}");

    let flag = vec![Override::new("--set", "registry.kind", "redis")];
    let shown = problem(load_from::<MediaNodeSettings>(None, no_environment(), flag));
    assert!(shown.contains("must not be `redis`; allowed are: memory, embedded, etcd"), "{shown}");
}

#[test]
fn a_file_must_be_there_and_of_a_known_kind() {
    let missing = Path::new("/no/such/file.toml");
    let shown = problem(load_from::<GatewaySettings>(Some(missing), no_environment(), Vec::new()));
    assert!(shown.contains("cannot read /no/such/file.toml"), "{shown}");
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "a.ini", "");
    let shown = problem(load_from::<GatewaySettings>(Some(&path), no_environment(), Vec::new()));
    assert!(shown.contains(".toml, .yaml or .yml"), "{shown}");
    let path = file(&folder, "a.toml", "[gateway\n");
    let shown = problem(load_from::<GatewaySettings>(Some(&path), no_environment(), Vec::new()));
    assert!(shown.contains("a.toml cannot be read"), "{shown}");
}

#[test]
fn lists_and_numbers_come_from_the_environment_too() {
    let variables = environment(&[
        ("HEADWATER_MEDIA_NODE__ADVERTISE_IPS", "[10.0.0.7, 10.0.0.8]"),
        ("HEADWATER_MEDIA_NODE__UDP_PORT", "9000"),
        ("HEADWATER_MEDIA_NODE__TCP", "false"),
        ("HEADWATER_CONFIG", "/ignored/here"),
    ]);
    let settings: MediaNodeSettings = load_from(None, variables, Vec::new()).unwrap();
    assert_eq!(settings.media_node.advertise_ips.len(), 2);
    assert_eq!((settings.media_node.udp_port, settings.media_node.tcp), (9000, false));
}

#[test]
fn keys_keep_their_case_and_secrets_of_digits_stay_texts() {
    let variables = environment(&[
        ("HEADWATER_KEYS__APIxYz", "0123"),
        ("HEADWATER_CLUSTER__SECRET", "0123456789012345"),
    ]);
    let settings: GatewaySettings = load_from(None, variables, Vec::new()).unwrap();
    let ring = settings.keys.ring(None, None).unwrap();
    assert_eq!(ring.first_key(), "APIxYz");
    let other = headwater_rpc::KeyRing::single("APIxYz", "0123").unwrap();
    let token = other.mint(&headwater_rpc::TokenRequest::default(), 100).unwrap();
    assert!(ring.verify(&token, 100).is_ok());
    settings.cluster.credential().unwrap();
}

#[test]
fn no_secret_is_shown() {
    let variables = environment(&[
        ("HEADWATER_KEYS__one", "hunter2"),
        ("HEADWATER_KEYS__two", "[hunter3, hunter4]"),
        ("HEADWATER_CLUSTER__SECRET", "hunter5-hunter5-hunter5"),
        ("HEADWATER_CLUSTER__RETIRING_SECRET", "hunter6-hunter6-hunter6"),
    ]);
    let settings: ControlPlaneSettings = load_from(None, variables, Vec::new()).unwrap();
    let everything = show(&settings).unwrap() + &show_in_line(&settings) + &format!("{settings:?}");
    assert!(!everything.contains("hunter"), "{everything}");
    assert!(everything.contains("one = \"(hidden)\""), "{everything}");
}

#[test]
fn keys_and_the_cluster_secret_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let keys = file(&folder, "keys.yaml", "zkey: from file\nakey: x\n");
    let none = KeyPairs::default();
    assert_eq!(none.ring(Some(&keys), None).unwrap().first_key(), "akey");
    assert_eq!(none.ring(Some(&keys), Some("zkey")).unwrap().first_key(), "zkey");
    let shown = format!("{:#}", none.ring(Some(&keys), Some("nokey")).unwrap_err());
    assert!(shown.contains("nokey"), "{shown}");
    let shown = format!("{:#}", none.ring(None, None).unwrap_err());
    assert!(shown.contains("HEADWATER_KEYS__"), "{shown}");

    let secret = file(&folder, "secret", "0123456789abcdef\n");
    let cluster = ClusterSecret { secret_file: Some(secret), ..Default::default() };
    let same = ClusterSecret { secret: Secret::new("0123456789abcdef"), ..Default::default() };
    let proof = cluster.credential().unwrap().prove(100);
    assert!(same.credential().unwrap().accepts(&proof, 100));
    assert!(ClusterSecret::default().credential().is_err());
    let short = ClusterSecret { secret: Secret::new("short"), ..Default::default() };
    assert!(format!("{:#}", short.credential().unwrap_err()).contains("16"));
}

#[test]
fn every_roles_own_defaults_can_be_used_and_shown() {
    show(&load_from::<ControlPlaneSettings>(None, no_environment(), Vec::new()).unwrap()).unwrap();
    show(&load_from::<GatewaySettings>(None, no_environment(), Vec::new()).unwrap()).unwrap();
    show(&load_from::<MediaNodeSettings>(None, no_environment(), Vec::new()).unwrap()).unwrap();
    let dev: DevSettings = load_from(None, no_environment(), Vec::new()).unwrap();
    assert!(dev.gateway.dev && dev.media_node.advertise_loopback);
    show(&dev).unwrap();
}
