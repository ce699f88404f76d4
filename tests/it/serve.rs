//! The reference service as a user runs it: it starts, answers, and ends when it is asked to.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;

/// A running service. It is killed when it is dropped, however the test ends.
struct Service {
    process: Child,
    address: String,
    folder: PathBuf,
}

impl Service {
    fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    fn start_with(name: &str, flags: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("selfheal-serve-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut process = Command::new(env!("CARGO_BIN_EXE_selfheal"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(flags)
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let stdout = process.stdout.take().expect("it is piped");
        let url = BufReader::new(stdout).lines().map_while(Result::ok).find_map(|line| {
            line.split_whitespace().find_map(|word| word.strip_prefix("http://").map(str::to_owned))
        });
        let address = url.expect("it prints its base URL");
        Self { process, address, folder }
    }

    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        self.say(method, path, "")
    }

    fn say(&self, method: &str, path: &str, json: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let kind = if json.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nx-user-id: ada\r\n{kind}Content-Length: {}\r\n\r\n{json}",
            self.address,
            json.len()
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("it replies");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    /// The first reply that says so.
    fn eventually(&self, path: &str, what: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..3_000 {
            let reply = self.json("GET", path);
            if what(&reply) {
                return reply;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{path} never says so: {}", self.json("GET", path));
    }

    fn json(&self, method: &str, path: &str) -> Value {
        let (status, body) = self.ask(method, path);
        assert_eq!(status, 200, "{method} {path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {body}"))
    }

    /// Asks it to end, as an orchestrator does.
    fn terminate(&mut self) -> ExitStatus {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        self.process.wait().expect("it ends")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_fresh_service_answers_on_every_route_and_ends_when_asked() {
    let mut service = Service::start("fresh");
    assert_eq!(service.json("POST", "/api/auth/login")["openTasks"], 0);
    assert_eq!(service.json("POST", "/api/tasks/assign")["assignee"], "ada");
    assert_eq!(service.json("POST", "/api/auth/login")["openTasks"], 1);
    let by_status = service.json("GET", "/api/reports")["rows"].clone();
    let all: i64 = by_status.as_object().expect("a row a status").values().filter_map(Value::as_i64).sum();
    assert_eq!(all, 20_000);
    assert!(service.json("GET", "/api/analytics")["rows"]["READY"].as_i64() > Some(0));
    // It makes 160 queries at once, which may be pressure: what could be shed has been asked for before.
    let dashboard = service.json("GET", "/api/dashboard");
    let panels = dashboard["panels"].as_object().map(|panels| panels.len());
    let omitted = dashboard["omitted"].as_array().map(Vec::len);
    assert_eq!(panels.zip(omitted).map(|(panels, omitted)| panels + omitted), Some(160));
    assert_eq!(
        service.json("GET", "/api/manager/assistance")["rows"].as_object().map(|rows| rows.len()),
        Some(10)
    );
    assert_eq!(service.ask("GET", "/livez").0, 200);
    assert_eq!(service.ask("GET", "/readyz").0, 200);
    let metrics = service.ask("GET", "/metrics").1;
    assert!(metrics.contains("selfheal_up 1"));
    // The first panel may have left alone; all others of those that are asked for by key went with others.
    let combined = metrics.lines().find_map(|line| {
        line.strip_prefix(r#"selfheal_queries_combined_total{op="dashboard_panels"} "#)?.parse::<u32>().ok()
    });
    assert!(combined.is_some_and(|combined| (20..40).contains(&combined)), "{combined:?} of 40");
    assert_eq!(service.json("GET", "/admin/self-healing/api/v1/status")["mode"], "act");
    assert!(service.terminate().success());
}

#[test]
fn a_report_that_is_made_later_is_promised_and_kept_for_its_caller() {
    let mut service = Service::start("later");
    let (status, promised) = service.ask("POST", "/api/reports");
    assert_eq!(status, 202, "{promised}");
    let promised: Value = serde_json::from_str(&promised).expect("it is JSON");
    let url = promised["url"].as_str().expect("it says where it will be");
    let made = service.eventually(url, |job| job["state"] == "done");
    let by_status = made["result"]["rows"].as_object().expect("a row a status").values();
    assert_eq!(by_status.filter_map(Value::as_i64).sum::<i64>(), 20_000);
    let queues = "/admin/self-healing/api/v1/queues";
    let done = |job: &Value| job["queues"][0]["name"] == "report" && job["queues"][0]["done"] == 1;
    service.eventually(queues, done);
    let drained = r#"selfheal_queue_items_total{queue="report",outcome="drained"} 1"#;
    let metrics = service.ask("GET", "/metrics").1;
    assert!(metrics.contains(drained), "{metrics}");
    assert!(service.terminate().success());
}

#[test]
fn faults_are_planted_only_where_they_were_asked_for_and_a_kept_reply_stands_in_for_them() {
    let sound = Service::start("sound");
    assert_eq!(sound.say("POST", "/faults", "{}").0, 404, "without the flag there is no such route");
    let helper = sound.ask("GET", "/fetch.js");
    assert!(
        helper.0 == 200 && helper.1.contains("retryAfter") && helper.1.lines().count() <= 40,
        "{helper:?}"
    );

    let service = Service::start_with("faults", &["--faults"]);
    let path = "/api/manager/assistance";
    assert!(service.json("GET", path)["rows"].is_object());
    for mode in ["error", "html", "panic"] {
        let order = format!(r#"{{"target":"{path}","mode":"{mode}","for":"1m"}}"#);
        assert_eq!(service.say("POST", "/faults", &order).0, 200);
        assert_eq!(service.json("GET", path)["cached"], true, "{mode}");
    }
    for mode in ["error", "off"] {
        let order = format!(r#"{{"target":"/api/reports","mode":"{mode}"}}"#);
        assert_eq!(service.say("POST", "/faults", &order).0, 200);
        assert_eq!(service.ask("GET", "/api/reports").0, if mode == "off" { 200 } else { 500 });
    }
    assert_eq!(service.say("POST", "/faults", r#"{"target":"db","mode":"error"}"#).0, 200);
    let (status, body) = service.ask("POST", "/api/auth/login");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["code"], &body["success"]), (503, &"pool_timeout".into(), &false.into()));
    assert_eq!(service.say("POST", "/faults", r#"{"target":"db","mode":"melt"}"#).0, 422);
    assert_eq!(service.say("POST", "/faults", r#"{"target":"nowhere","mode":"off"}"#).0, 400);
}
