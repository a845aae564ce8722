//! Runs each example as the program it is, and looks at what it says.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// Where cargo puts the examples: beside the folder of this test.
fn program(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this test");
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples").join(name));
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

async fn says(name: &str, dir: &std::path::Path) -> String {
    let run = program(name).current_dir(dir).output();
    let output = timeout(PATIENCE, run)
        .await
        .expect("an end")
        .expect("the program starts");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    text(&output.stdout)
}

async fn says_alone(name: &str) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    says(name, dir.path()).await
}

#[tokio::test]
async fn the_counter_goes_on_where_it_was_and_takes_at_most_twenty_lines() {
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(says("counter", dir.path()).await, "1\n");
    assert_eq!(says("counter", dir.path()).await, "2\n");
    let source = include_str!("../examples/counter.rs");
    let lines = source.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 20, "{lines} lines");
}

#[tokio::test]
async fn reminders_fire_and_are_cancelled() {
    assert_eq!(
        says_alone("reminder").await,
        "waiting: 3\nada: stretch\nstill waiting: 1\n"
    );
}

#[tokio::test]
async fn each_tenant_has_its_own_limit() {
    assert_eq!(
        says_alone("rate_limiter").await,
        "acme: 5 of 8 admitted\nglobex: 5 of 8 admitted\n"
    );
}

#[tokio::test]
async fn jobs_are_worked_off_and_answered() {
    let expected = "HELLO\nuser.gave_up: the job failed six times\ndone: 11\n";
    assert_eq!(says_alone("job_queue").await, expected);
}

#[tokio::test]
async fn the_coordinator_makes_its_rooms() {
    assert_eq!(says_alone("coordinator").await, "general, random\nmessages: 2\n");
}

#[tokio::test]
async fn counts_are_gathered_from_all_parts() {
    assert_eq!(says_alone("fan_out").await, "11 words\nmost frequent: the (3)\n");
}

#[tokio::test]
async fn the_world_moves_one_step_a_tick() {
    let told = says_alone("game_room").await;
    let expected = "user.not_in_room: join first\nann is at Some((3, -3))\n";
    assert!(told.starts_with(expected), "{told}");
}

#[tokio::test]
async fn players_hear_of_what_is_near_and_of_nothing_else() {
    let told = says_alone("game_room").await;
    let expected = "bob sees ann, then bob\ncy sees cy\ncy watches the middle and sees ann\n";
    assert!(told.ends_with(expected), "{told}");
}

#[tokio::test]
async fn the_mirror_has_every_change() {
    assert_eq!(says_alone("mirror_sqlite").await, "mirrored: 110\n");
}

#[tokio::test]
async fn the_agent_streams_its_answer_and_remembers() {
    assert_eq!(
        says_alone("agent").await,
        "... hello\n... world\nhello world\nuser: world hello\nagent: hello world\n"
    );
}

#[tokio::test]
async fn two_pages_chat_and_the_room_takes_at_most_sixty_lines() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let source = include_str!("../examples/chat.rs");
    let lines = source.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 60, "{lines} lines");

    let dir = tempfile::tempdir().expect("a folder");
    let mut chat = program("chat");
    let mut chat = chat
        .arg("0")
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut out = BufReader::new(chat.stdout.take().expect("a pipe")).lines();
    let line = timeout(PATIENCE, out.next_line()).await.expect("in time");
    let url = line.expect("readable").expect("a line");
    let (address, path) = url
        .strip_prefix("http://")
        .and_then(|url| url.split_once('/'))
        .expect("an address");
    let page = http(address, &format!("GET /{path}")).await;
    assert!(page.contains("<title>Chat</title>"), "{page}");
    let socket = || async {
        let stream = TcpStream::connect(address).await.expect("the gateway listens");
        let url = format!("ws://{address}/{}", path.replacen("/request/", "/websocket/", 1));
        let (socket, _) = tokio_tungstenite::client_async(url, stream)
            .await
            .expect("a socket");
        socket
    };
    let (mut ada, mut bob) = (socket().await, socket().await);
    ada.send(Message::text("/name ada")).await.expect("sent");
    ada.send(Message::text("hello")).await.expect("sent");
    for socket in [&mut ada, &mut bob] {
        let heard = timeout(PATIENCE, socket.next()).await.expect("in time");
        assert_eq!(
            heard.expect("a message").expect("sound"),
            Message::text("ada: hello")
        );
    }
    bob.send(Message::text("hi")).await.expect("sent");
    let heard = timeout(PATIENCE, ada.next()).await.expect("in time");
    assert_eq!(
        heard.expect("a message").expect("sound"),
        Message::text("somebody: hi")
    );
    let mut late = socket().await;
    let heard = timeout(PATIENCE, late.next()).await.expect("in time");
    assert_eq!(
        heard.expect("a message").expect("sound"),
        Message::text("ada: hello")
    );
    chat.kill().await.expect("it ends");
}

async fn http(to: &str, request: &str) -> String {
    http_with(to, request, "").await
}

async fn http_with(to: &str, request: &str, body: &str) -> String {
    let exchange = async {
        let mut socket = TcpStream::connect(to).await?;
        let length = body.len();
        let request = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    timeout(PATIENCE, exchange)
        .await
        .expect("in time")
        .expect("an answer")
}

#[tokio::test]
async fn the_web_application_answers() {
    let mut app = program("axum_app")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(app.stdout.take().expect("a pipe")).lines();
    let line = timeout(PATIENCE, lines.next_line())
        .await
        .expect("in time")
        .expect("readable")
        .expect("a line");
    let address = line.strip_prefix("listening on ").expect("an address").to_owned();
    let body = |answer: String| answer.split_once("\r\n\r\n").expect("a body").1.to_owned();
    assert_eq!(body(http(&address, "POST /carts/ada/items/apple").await), "1\n");
    assert_eq!(body(http(&address, "POST /carts/ada/items/apple").await), "2\n");
    assert_eq!(body(http(&address, "GET /carts/ada").await), "2 apple\n");
    assert_eq!(body(http(&address, "GET /carts/nobody").await), "");
    let query = "rvt-namespace=default&rvt-method=get&rvt-key=ada";
    let action = format!("POST /api/actors/gateway/cart/action/items?{query}");
    let answer = http_with(&address, &action, "{\"args\":[]}").await;
    assert_eq!(body(answer), "{\"output\":{\"apple\":2}}");
    let health = body(http(&address, "GET /api/actors/health").await);
    assert!(health.contains("\"ok\""), "{health}");
    app.kill().await.expect("it ends");
}

#[tokio::test]
async fn a_program_of_ones_own_has_the_commands_of_clinch_and_its_demo_counts_with_its_own_counter() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut demo = program("react_chat");
    demo.args([
        "demo",
        "--increments",
        "300",
        "--actors",
        "10",
        "--kills",
        "0",
        "--dir",
    ])
    .arg(dir.path().join("demo"));
    let output = timeout(PATIENCE, demo.output())
        .await
        .expect("an end")
        .expect("the program starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(told.contains("\"lost\":0"), "{told}");
}

#[tokio::test]
async fn a_program_of_ones_own_tells_typescript_of_its_actors() {
    let output = timeout(PATIENCE, program("react_chat").arg("typescript").output())
        .await
        .expect("an end")
        .expect("the program starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for part in [
        "export type Line = {",
        "say: (context$: unknown, id: string, text: string) => number;",
        "line: EventOf<[Said]>;",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[tokio::test]
async fn a_program_of_ones_own_serves_its_own_actors() {
    let dir = tempfile::tempdir().expect("a folder");
    let free = || std::net::TcpListener::bind("127.0.0.1:0")?.local_addr();
    let ports = [free().expect("a port"), free().expect("a port")].map(|address| address.port().to_string());
    let mut node = program("react_chat")
        .args([
            "dev",
            "--json",
            "--port",
            &ports[0],
            "--listen-port",
            &ports[1],
            "--dir",
        ])
        .arg(dir.path().join("data"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(node.stdout.take().expect("its output")).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("a line");
    let about = line.expect("text").expect("a line");
    assert!(
        about.contains("\"room\"") && !about.contains("\"chatRoom\""),
        "{about}"
    );
    node.kill().await.expect("it runs");
}
