//! Third-party clients: a browser on both protocols, and Node's WebSocket library.

use roundhouse_tests::guests::ticket_collision;
use roundhouse_tests::{Script, TestHost, skip};
use serde_json::json;

#[test]
fn node_ws_speaks_the_plain_protocol() {
    let script = match Script::on_node("plain.mjs") {
        Ok(script) => script,
        Err(why) => return skip("node_ws_speaks_the_plain_protocol", why),
    };
    // The script waits for heartbeats.
    let env = [("ROUNDHOUSE_HEARTBEAT__INTERVAL", "300ms"), ("ROUNDHOUSE_HEARTBEAT__TIMEOUT", "1s")];
    let host = TestHost::start_with("", &env);
    script.expect_success(&host, &[&host.token("ana"), &host.token("ben")]);
}

#[tokio::test]
async fn browser_tabs_survive_a_swap_and_a_loss() {
    let script = match Script::in_browser("browser.mjs") {
        Ok(script) => script,
        Err(why) => return skip("browser_tabs_survive_a_swap_and_a_loss", why),
    };
    let host = TestHost::start();
    let screenshot = host.dir().join("screenshot.png");
    let mut browser = script.start(&host, &[screenshot.to_str().unwrap()]);
    if browser.read_line() == Some(json!({ "ready": true })) {
        host.load("ticket-collision", ticket_collision("0.1.1")).await;
        browser.write_line(&json!({ "expectVersion": "0.1.1" }));
    }
    browser.expect_success(&host);
    assert!(std::fs::metadata(screenshot).unwrap().len() > 10_000, "there is a picture of it");
}
