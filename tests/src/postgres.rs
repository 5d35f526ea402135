//! A PostgreSQL server, in a folder of its own, on a free port.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::TIMEOUT;
use crate::process::{free_port, send_signal};

/// The account that Debian's package creates for the server, which does not run as root.
const SERVER_ACCOUNT: &str = "postgres";

/// A running server, which is killed when this value is dropped.
#[derive(Debug)]
pub struct TestPostgres {
    programs: PathBuf,
    dir: TempDir,
    port: u16,
    tls: bool,
    child: Option<Child>,
}

impl TestPostgres {
    /// Starts a server.
    ///
    /// # Errors
    /// If PostgreSQL is not installed, with the reason.
    pub fn start() -> Result<Self, String> {
        Self::start_with(false)
    }

    /// Starts a server that accepts connections over TLS alone. Its certificate is for `localhost`, and signed by
    /// [`Self::authority`].
    ///
    /// # Errors
    /// If PostgreSQL is not installed, with the reason.
    pub fn start_with_tls() -> Result<Self, String> {
        Self::start_with(true)
    }

    fn start_with(tls: bool) -> Result<Self, String> {
        let programs = programs().ok_or("PostgreSQL is not installed (no initdb in PATH or /usr/lib/postgresql)")?;
        let dir = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let mut server = Self { programs, dir, port, tls, child: None };
        if tls {
            server.make_certificates();
        }
        give_to_server_account(server.dir.path());
        let made = server
            .command("initdb")
            .args(["--no-sync", "--auth", "trust", "--username", "roundhouse", "--encoding", "UTF8", "-D"])
            .arg(server.data())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        if tls {
            server.let_in("hostssl");
        }
        server.resume();
        Ok(server)
    }

    /// Lets the server, from its next start on, accept connections of this kind alone (`pg_hba.conf`).
    pub fn let_in(&self, kind: &str) {
        let rule = format!("{kind} all all 127.0.0.1/32 trust\n");
        fs::write(self.data().join("pg_hba.conf"), rule).expect("the rules can be written");
    }

    fn make_certificates(&self) {
        let mut authority = CertificateParams::new([]).expect("no names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("signed");
        let key = KeyPair::generate().expect("a key");
        let own = CertificateParams::new(["localhost".to_owned()]).expect("a name").signed_by(&key, &authority);
        let write = |name: &str, pem: String| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.dir.path().join(name));
            let file = file.as_mut().expect("a file can be made");
            file.write_all(pem.as_bytes()).expect("it can be written");
        };
        write("authority.pem", authority.pem());
        write("server.pem", own.expect("signed").pem());
        write("server.key", key.serialize_pem());
    }

    /// The path of the certificate that signed the server's.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        self.url_at("127.0.0.1")
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the server with `host`, another name of this machine.
    pub fn url_at(&self, host: &str) -> String {
        format!("postgres://roundhouse@{host}:{}/postgres", self.port)
    }

    /// Stops the server as a restart does, which breaks its connections.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // A "fast shutdown", as the server's manual calls it.
        send_signal(child.id(), "INT");
        child.wait().expect("the server can be waited for");
    }

    /// Starts the stopped server again.
    pub fn resume(&mut self) {
        let log = fs::File::create(self.dir.path().join("log")).expect("a log can be made");
        let mut command = self.command("postgres");
        if self.tls {
            command.args(["-c", "ssl=on", "-c", "ssl_cert_file=../server.pem", "-c", "ssl_key_file=../server.key"]);
        }
        let child = command
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres runs");
        self.child = Some(child);
        let deadline = Instant::now() + TIMEOUT;
        while !self.log().contains("ready to accept connections") {
            assert!(Instant::now() < deadline, "the server did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A command of the server's installation.
    fn command(&self, program: &str) -> Command {
        server_command(&self.programs.join(program), self.dir.path())
    }

    /// The URL of another database for a role.
    pub fn url_of(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs statements as the owner of the database.
    pub fn run(&self, statements: &str) {
        self.on_a_connection(|client| {
            client.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"))
        });
    }

    /// The only value that a query returns, as text.
    pub fn value(&self, query: &str) -> String {
        self.on_a_connection(|client| {
            client.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
        })
    }

    /// Keeps all from writing a table until what is returned is dropped.
    pub fn block_writes(&self, table: &str) -> BlockedTable {
        self.lock(table, "SHARE")
    }

    /// Keeps all from reading and writing a table until what is returned is dropped.
    pub fn block_reads(&self, table: &str) -> BlockedTable {
        self.lock(table, "ACCESS EXCLUSIVE")
    }

    fn lock(&self, table: &str, mode: &str) -> BlockedTable {
        let ((blocked, waiting), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
        let (url, lock) = (self.url(), format!("LOCK TABLE {table} IN {mode} MODE"));
        // A thread of its own: client and test may each have a runtime.
        let thread = thread::spawn(move || {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).expect("the server accepts connections");
            let mut transaction = client.transaction().expect("a transaction begins");
            transaction.batch_execute(&lock).expect("the table can be locked");
            blocked.send(()).expect("the test waits");
            // It ends with an error when the sender is dropped.
            let _ = released.recv();
        });
        waiting.recv().expect("the table is locked");
        BlockedTable { release: Some(release), thread: Some(thread) }
    }

    /// Runs `work` on a connection of the owner, on another thread, because client and test may each have a runtime.
    fn on_a_connection<T: Send>(&self, work: impl FnOnce(&mut postgres::Client) -> T + Send) -> T {
        let work = || {
            let client = postgres::Client::connect(&self.url(), postgres::NoTls);
            work(&mut client.expect("the server can be connected to"))
        };
        std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Gives a folder to the account that servers run as if the tests run as root.
pub(crate) fn give_to_server_account(dir: &Path) {
    if is_root() {
        let given = Command::new("chown").args(["-R", SERVER_ACCOUNT]).arg(dir).status();
        assert!(given.is_ok_and(|status| status.success()), "the folder can be given to {SERVER_ACCOUNT}");
    }
}

/// A command for a program that refuses to run as root, in a folder of its own. The program replaces the process that
/// the command starts, so that killing that process ends the program.
pub(crate) fn server_command(program: &Path, dir: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", SERVER_ACCOUNT, "--regid", SERVER_ACCOUNT, "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// A table that cannot be written until this value is dropped.
#[derive(Debug)]
pub struct BlockedTable {
    release: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for BlockedTable {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The server is killed at once, because nothing of it is kept.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout.trim_ascii() == b"0"
}

/// The folder of the server's programs, of the newest installed version.
fn programs() -> Option<PathBuf> {
    let has_server = |folder: &Path| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(folder) = std::env::split_paths(&path).find(|folder| has_server(folder)) {
        return Some(folder);
    }
    let mut installed: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| has_server(folder))
        .collect();
    installed.sort();
    installed.pop()
}
