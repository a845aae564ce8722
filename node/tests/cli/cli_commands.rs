//! Commands that need no cluster: help, usage, configuration, certificates.

use crate::cli_support::{clinch, failure_of, run, stdout_of, text};

#[test]
fn every_command_has_help_with_an_example() {
    let commands: &[&[&str]] = &[
        &["dev"],
        &["up"],
        &["demo"],
        &["start"],
        &["config", "check"],
        &["status"],
        &["shards"],
        &["actors", "ls"],
        &["actors", "get"],
        &["actors", "call"],
        &["actors", "destroy"],
        &["cert", "init"],
        &["cert", "issue"],
        &["doctor"],
    ];
    for command in commands {
        let help = stdout_of(&[*command, &["--help"]].concat());
        let example = format!("clinch {}", command.join(" "));
        assert!(
            help.contains("Example") && help.matches(&example).count() >= 2,
            "{command:?}:\n{help}"
        );
    }
    let help = stdout_of(&["--help"]);
    for command in commands {
        assert!(
            help.contains(&format!("\n  {} ", command[0])),
            "{command:?}:\n{help}"
        );
    }
    for later in ["drain", "remove"] {
        assert!(
            !help.contains(later),
            "{later} is not part of this release:\n{help}"
        );
    }
    assert!(stdout_of(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn start_documents_the_variables_that_override_its_file() {
    let help = stdout_of(&["start", "--help"]);
    for variable in [
        "CLINCH_DATA_DIR",
        "CLINCH_CLUSTER_JOIN",
        "CLINCH_RAFT_HEARTBEAT_MS",
    ] {
        assert!(help.contains(variable), "{help}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_wrong() {
    assert!(failure_of(&["fly"], 2).contains("fly"));
    assert!(failure_of(&["up", "--nodes", "0"], 2).contains('0'));
    assert!(failure_of(&["status", "--gateway", "ftp://x"], 2).contains("ftp://x"));
    assert!(failure_of(&["actors", "call", "counter", "increment", "[3"], 2).contains("[3"));
    assert!(failure_of(&["cert", "issue", "--dir", "d"], 2).contains("--node"));
}

#[test]
fn a_cluster_that_is_not_there_exits_with_3() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for command in [&["status"][..], &["shards"], &["actors", "ls", "counter"]] {
        let said = failure_of(&[command, &["--gateway", &gateway]].concat(), 3);
        assert!(said.starts_with("clinch: ") && said.contains(&gateway), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

const SOUND: &str = "node = 2\ndata-dir = \"data\"\ncert-dir = \"certs\"\nlisten = \"127.0.0.1:7420\"\n\
                     [cluster]\njoin = [\"127.0.0.1:7421\"]\n";

#[test]
fn config_check_passes_a_sound_file_and_shows_what_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clinch.toml");
    std::fs::write(&file, format!("code-version = 7\n{SOUND}")).unwrap();
    let file = file.to_str().unwrap();
    assert!(stdout_of(&["config", "check", file]).contains("sound (node 2)"));
    let json: serde_json::Value =
        serde_json::from_str(&stdout_of(&["config", "check", file, "--json"])).unwrap();
    assert_eq!(
        (&json["cluster"]["shards"], &json["code-version"]),
        (&16.into(), &7.into())
    );
    assert_eq!(json["data-dir"], dir.path().join("data").to_str().unwrap());
    let output = clinch(&["config", "check", file, "--json"])
        .env("CLINCH_RAFT_HEARTBEAT_MS", "50")
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["raft"]["heartbeat-ms"], 50);
}

#[test]
fn config_check_names_what_is_wrong_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clinch.toml");
    let path = file.to_str().unwrap().to_owned();
    for (text, expected) in [
        (format!("{SOUND}speed = 9\n"), "speed"),
        (SOUND.replace("join = [\"127.0.0.1:7421\"]", ""), "cluster.join"),
        (format!("gateway = [\"0.0.0.0:6420\"]\n{SOUND}"), "0.0.0.0:6420"),
        (
            format!("{SOUND}[raft]\nheartbeat-ms = 200\n"),
            "raft.heartbeat-ms (200)",
        ),
        ("node = ".into(), "line 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let said = failure_of(&["config", "check", &path], 2);
        assert!(
            said.contains(expected) && said.contains(&path),
            "{expected}: {said}"
        );
    }
    let said = failure_of(&["config", "check", "/nowhere/clinch.toml"], 2);
    assert!(said.contains("/nowhere/clinch.toml"), "{said}");
    let said = failure_of(&["start", "--config", "/nowhere/clinch.toml"], 2);
    assert!(said.contains("/nowhere/clinch.toml"), "{said}");
}

#[test]
fn certificates_are_made_for_nodes_and_clients_and_an_authority_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let path = certs.to_str().unwrap();
    stdout_of(&["cert", "init", "--dir", path, "--cluster", "shop"]);
    let key = std::fs::read(certs.join("ca.key")).unwrap();
    assert!(failure_of(&["cert", "init", "--dir", path, "--cluster", "shop"], 1).contains("authority"));
    assert_eq!(std::fs::read(certs.join("ca.key")).unwrap(), key);

    stdout_of(&[
        "cert", "issue", "--dir", path, "--node", "7", "--host", "10.0.0.1",
    ]);
    let out = dir.path().join("web");
    let made = stdout_of(&[
        "cert",
        "issue",
        "--dir",
        path,
        "--client",
        "web",
        "--out",
        out.to_str().unwrap(),
        "--json",
    ]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["files"].as_array().unwrap().len(), 2);
    let node = clinch_transport::PeerId::Node(clinch_types::NodeId(7));
    assert_eq!(
        clinch_transport::CertBundle::load(&certs, &node)
            .unwrap()
            .cluster(),
        "shop"
    );
    let client = clinch_transport::PeerId::Client("web".into());
    assert_eq!(
        clinch_transport::CertBundle::load(&out, &client)
            .unwrap()
            .cluster(),
        "shop"
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(certs.join("node-7.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(failure_of(&["cert", "issue", "--dir", path, "--client", "../x"], 1).contains("../x"));
}

#[test]
fn a_folder_with_something_else_in_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("holiday.jpg"), "sea").unwrap();
    let path = dir.path().to_str().unwrap();
    assert!(failure_of(&["dev", "--dir", path], 2).contains("not empty"));
    assert!(text(&run(&["up", "--dir", path]).stderr).contains("not empty"));
    assert!(text(&run(&["demo", "--dir", path]).stderr).contains("not empty"));
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing was added"
    );
}
