//! Any text is a configuration or has messages that point into it.

use std::path::Path;

use testbed::fuzz;

#[test]
fn fuzz_configurations() {
    let full = "listeners:\n  main: { address: 127.0.0.1:8080, connections_per_address: 5, tls: { certificate: a.pem, key: a.key } }\nservices:\n  \
                web:\n    routes: [{ host: '*.example.com', path: /a }]\n    run: { command: [sh, -c, 'x {port}'], targets: 2 }\n    health: { path: /, \
                interval: 1s }\n    strategy: { canary: { steps: [1%, 5%, 100%] } }\n";
    let words: &[&[u8]] =
        &[b": ", b"{ ", b" }", b"[", b"]", b"\n  ", b"- ", b"&a ", b"*a", b"!!int ", b"'", b"\"", b"|\n", b"1%", b"10s", b"\xc3\xa4", b"~"];
    let samples: &[&[u8]] = &[config::template().as_bytes(), full.as_bytes(), b"listeners: { main: 127.0.0.1:80 }\n"];
    fuzz::run("configurations", samples, words, |input, _| {
        let text = String::from_utf8_lossy(input);
        match config::parse(&text, Path::new("/srv/changeover.yaml")) {
            Ok(desired) => assert!(desired.services.values().all(|service| !service.routes.is_empty())),
            Err(rejected) => assert!(!rejected.to_string().is_empty()),
        }
    });
}
