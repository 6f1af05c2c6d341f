//! The access log: each data thread fills its own buffer, one writer thread writes the file.
//!
//! **Invariant**: logging never makes a request wait. When the writer does not keep up, lines are dropped and counted.
//! Not here: rotation.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{AccessLog, AccessLogFormat, AccessLogScope};

use crate::time_text;

/// A buffer of this size goes to the writer; 32 KiB is about 150 lines, one `write` each.
const BUFFER_BYTES: usize = 32 * 1024;
/// Buffers that wait for the disk, over all threads: at most 4 MiB.
const QUEUE_BUFFERS: usize = 128;

/// One finished request.
pub struct LogRecord<'a> {
    pub client: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub protocol: &'a str,
    pub status: u16,
    /// Sent to the client.
    pub bytes: u64,
    /// Sent by the client; of connections of any protocol.
    pub received: Option<u64>,
    /// Of a call of gRPC that was told how it ended.
    pub grpc_status: Option<u8>,
    pub duration: Duration,
    pub service: &'a str,
    pub version: &'a str,
    pub target: &'a str,
    /// Why the proxy answered itself, or why it broke off; empty otherwise.
    pub reason: &'a str,
}

impl LogRecord<'_> {
    /// Of a client of which nothing more is known.
    pub fn of_connection(client: IpAddr) -> Self {
        Self {
            client,
            method: "",
            host: "",
            path: "",
            protocol: "",
            status: 0,
            bytes: 0,
            received: None,
            grpc_status: None,
            duration: Duration::ZERO,
            service: "",
            version: "",
            target: "",
            reason: "",
        }
    }
}

#[derive(Clone)]
pub struct LogWriter {
    queue: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
    settings: AccessLog,
}

impl LogWriter {
    pub fn open(settings: AccessLog, path: &Path) -> io::Result<LogWriter> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let (queue, buffers) = sync_channel(QUEUE_BUFFERS);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(file, buffers))?;
        Ok(LogWriter { queue, dropped: Arc::default(), settings })
    }

    pub fn sink(&self) -> LogSink {
        LogSink { writer: self.clone(), buffer: Vec::new(), lines: 0, second: (0, String::new()) }
    }

    /// Lines lost because the disk did not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn write_all(mut file: File, buffers: Receiver<Vec<u8>>) {
    for buffer in buffers {
        // A full disk must not end the log for ever: the next buffer is tried again.
        let _ = file.write_all(&buffer);
    }
}

/// The end that one data thread owns.
pub struct LogSink {
    writer: LogWriter,
    buffer: Vec<u8>,
    lines: u64,
    second: (u64, String),
}

impl LogSink {
    pub fn wants(&self, status: u16, made_by_proxy: bool) -> bool {
        match self.writer.settings.scope {
            AccessLogScope::None => false,
            AccessLogScope::Failed => made_by_proxy || status >= 500,
            AccessLogScope::All => true,
        }
    }

    pub fn write(&mut self, record: &LogRecord<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match self.writer.settings.format {
            AccessLogFormat::Json => self.write_json(record, now),
            AccessLogFormat::Common => self.write_common(record, now),
        }
        self.lines += 1;
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    /// Called when full and, by the owner, at every tick of its clock.
    pub fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let buffer = std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_BYTES + 1024));
        if self.writer.queue.try_send(buffer).is_err() {
            self.writer.dropped.fetch_add(self.lines, Ordering::Relaxed);
        }
        self.lines = 0;
    }

    fn second_text(&mut self, unix_s: u64, text: fn(u64) -> String) {
        if self.second.0 != unix_s {
            self.second = (unix_s, text(unix_s));
        }
    }

    fn write_json(&mut self, record: &LogRecord<'_>, now: Duration) {
        self.second_text(now.as_secs(), time_text::iso);
        let out = &mut self.buffer;
        let _ = write!(out, r#"{{"time":"{}.{:03}Z","client":"{}""#, self.second.1, now.subsec_millis(), record.client);
        for (key, value) in [
            ("method", record.method),
            ("host", record.host),
            ("path", record.path),
            ("protocol", record.protocol),
            ("service", record.service),
            ("version", record.version),
            ("target", record.target),
            ("reason", record.reason),
        ] {
            if !value.is_empty() {
                let _ = write!(out, r#","{key}":""#);
                escape(out, value);
                out.push(b'"');
            }
        }
        let (status, bytes, duration_us) = (record.status, record.bytes, record.duration.as_micros());
        match record.received {
            // A connection has no status.
            Some(received) => {
                let _ = writeln!(out, r#","bytes":{bytes},"received":{received},"duration_us":{duration_us}}}"#);
            }
            None => {
                if let Some(grpc_status) = record.grpc_status {
                    let _ = write!(out, r#","grpc_status":{grpc_status}"#);
                }
                let _ = writeln!(out, r#","status":{status},"bytes":{bytes},"duration_us":{duration_us}}}"#);
            }
        }
    }

    fn write_common(&mut self, record: &LogRecord<'_>, now: Duration) {
        self.second_text(now.as_secs(), time_text::common);
        let out = &mut self.buffer;
        let _ = write!(out, "{} - - [{}] \"{} ", record.client, self.second.1, record.method);
        escape(out, record.path);
        let reason = if record.reason.is_empty() { "-" } else { record.reason };
        let _ = writeln!(out, " {}\" {} {} {reason}", record.protocol, record.status, record.bytes);
    }
}

impl Drop for LogSink {
    fn drop(&mut self) {
        self.flush();
    }
}

/// As JSON wants it; also keeps a client from writing its own log lines.
fn escape(out: &mut Vec<u8>, text: &str) {
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0..0x20 | 0x7f => {
                let _ = write!(out, "\\u{byte:04x}");
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_clients_is_escaped() {
        let check = |given: &str, expect: &str| {
            let mut out = Vec::new();
            escape(&mut out, given);
            assert_eq!(String::from_utf8(out).expect("utf-8"), expect);
        };
        check("/a?b=\"c\\", "/a?b=\\\"c\\\\");
        check("x\n\u{7f}", "x\\u000a\\u007f");
    }
}
