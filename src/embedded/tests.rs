use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::str::FromStr;
use std::time::Instant;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;

use super::*;

/// A data directory that the unprivileged user can reach; ends what a failed test left running in it.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    fn data_dir(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("data")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        end_postmaster_in(&self.data_dir().join("postgres"));
    }
}

/// A directory outside the scratch one, removed however the test ends.
struct Elsewhere(PathBuf);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        end_postmaster_in(&self.0.join("postgres"));
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn end_postmaster_in(cluster: &Path) {
    let recorded = fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
    let Some(pid) = recorded.lines().next().and_then(|pid| pid.parse::<u32>().ok()) else { return };
    if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == cluster) {
        send_signal(pid, Signal::QUIT);
    }
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t") && line.split('\t').nth(2) == Some("0"))
}

async fn connect(embedded: &Embedded) -> PgConnection {
    PgConnectOptions::from_str(&embedded.url()).unwrap().connect().await.unwrap()
}

async fn ask(connection: &mut PgConnection, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

async fn note(connection: &mut PgConnection) {
    sqlx::raw_sql("CREATE TABLE note AS SELECT 'kept'::text AS word").execute(connection).await.unwrap();
}

async fn wait_until_dead(pid: u32) {
    timeout(Duration::from_secs(10), async {
        while place::alive(pid).await {
            sleep(POLL).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_first_start_gives_a_private_durable_database() {
    let scratch = Scratch::new();
    let embedded = Embedded::start(&scratch.data_dir()).await.unwrap();
    assert!(embedded.owned());
    assert_eq!(embedded.data_path(), scratch.data_dir().join("postgres"));
    assert!(embedded.socket_dir().as_os_str().len() < 100);
    assert_eq!(fs::metadata(embedded.socket_dir()).unwrap().mode() & 0o7777, 0o700);
    assert!(scratch.data_dir().join("postgres.log").exists());

    let mut connection = connect(&embedded).await;
    assert_eq!(ask(&mut connection, "SHOW listen_addresses").await, "");
    assert_eq!(ask(&mut connection, "SHOW fsync").await, "on");
    assert_eq!(ask(&mut connection, "SHOW server_encoding").await, "UTF8");
    assert_eq!(ask(&mut connection, "SELECT current_user::text").await, super::USER);
    assert_eq!(ask(&mut connection, "SELECT current_database()::text").await, super::DATABASE);
    let reached_by_tcp =
        "SELECT count(*)::text FROM pg_hba_file_rules WHERE type <> 'local' AND auth_method <> 'reject'";
    assert_eq!(ask(&mut connection, reached_by_tcp).await, "0");
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_finds_its_data_within_half_a_second_or_so() {
    let scratch = Scratch::new();
    let cold = Instant::now();
    let first = Embedded::start(&scratch.data_dir()).await.unwrap();
    let cold = cold.elapsed();
    note(&mut connect(&first).await).await;
    let pid = first.pid;
    first.stop().await.unwrap();
    assert!(!place::alive(pid).await);

    let warm = Instant::now();
    let second = Embedded::start(&scratch.data_dir()).await.unwrap();
    let warm = warm.elapsed();
    eprintln!("cold {cold:?}, warm {warm:?}");
    assert_eq!(ask(&mut connect(&second).await, "SELECT word FROM note").await, "kept");
    assert!(warm < Duration::from_secs(5), "a busy machine may be slow, not this slow: {warm:?}");
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_postmaster_is_replaced_and_the_data_is_there() {
    let scratch = Scratch::new();
    let first = Embedded::start(&scratch.data_dir()).await.unwrap();
    let mut connection = connect(&first).await;
    note(&mut connection).await;
    send_signal(first.pid, Signal::KILL);
    drop(first);

    let second = Embedded::start(&scratch.data_dir()).await.unwrap();
    assert!(second.child.is_some());
    assert_eq!(ask(&mut connect(&second).await, "SELECT word FROM note").await, "kept");
    second.stop().await.unwrap();
}

#[tokio::test]
async fn remains_of_a_killed_postmaster_are_waited_for() {
    let scratch = Scratch::new();
    let first = Embedded::start(&scratch.data_dir()).await.unwrap();
    let mut connection = connect(&first).await;
    let backend: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
    let backend = u32::try_from(backend).unwrap();
    send_signal(backend, Signal::STOP); // holds the shared memory until it may run again
    send_signal(first.pid, Signal::KILL);
    drop(first);

    let data_dir = scratch.data_dir();
    let release = async {
        sleep(Duration::from_secs(1)).await;
        send_signal(backend, Signal::CONT);
    };
    let began = Instant::now();
    let (second, ()) = tokio::join!(Embedded::start(&data_dir), release);
    assert!(began.elapsed() >= Duration::from_secs(1));
    second.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_command_beside_a_server_leaves_it_running() {
    let scratch = Scratch::new();
    let server = Embedded::start(&scratch.data_dir()).await.unwrap();
    let command = Embedded::attach_or_start(&scratch.data_dir()).await.unwrap();
    assert!(!command.owned());
    assert_eq!(command.pid, server.pid);
    command.stop().await.unwrap();
    connect(&server).await.ping().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_command_stops_what_it_launched_unless_a_server_has_moved_in() {
    let scratch = Scratch::new();
    let command = Embedded::attach_or_start(&scratch.data_dir()).await.unwrap();
    assert!(command.owned());
    let server = Embedded::start(&scratch.data_dir()).await.unwrap();
    command.stop().await.unwrap();
    connect(&server).await.ping().await.unwrap();
    let pid = server.pid;
    server.stop().await.unwrap();
    wait_until_dead(pid).await;

    let alone = Embedded::attach_or_start(&scratch.data_dir()).await.unwrap();
    let pid = alone.pid;
    alone.stop().await.unwrap();
    assert!(!place::alive(pid).await);
}

#[tokio::test]
async fn the_orphan_of_a_killed_octo_is_adopted_and_stopped() {
    let scratch = Scratch::new();
    let first = Embedded::start(&scratch.data_dir()).await.unwrap();
    let pid = first.pid;
    drop(first); // PostgreSQL stays, as after kill -9 of octo

    let second = Embedded::start(&scratch.data_dir()).await.unwrap();
    assert_eq!((second.pid, second.owned(), second.child.is_none()), (pid, true, true));
    second.stop().await.unwrap();
    assert!(!place::alive(pid).await);
}

#[tokio::test]
async fn postgres_has_a_process_group_of_its_own() {
    let scratch = Scratch::new();
    let embedded = Embedded::start(&scratch.data_dir()).await.unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", embedded.pid)).unwrap();
    let group = stat.rsplit(") ").next().unwrap().split(' ').nth(2).unwrap();
    assert_eq!(group, embedded.pid.to_string());
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn a_pid_that_now_belongs_to_somebody_else_does_not_block_the_start() {
    let scratch = Scratch::new();
    let first = Embedded::start(&scratch.data_dir()).await.unwrap();
    let (account, cluster) = (first.place.account.clone(), first.place.cluster.clone());
    send_signal(first.pid, Signal::KILL);
    wait_until_dead(first.pid).await;
    drop(first);
    let mut somebody = account.command("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
    let somebody_pid = somebody.id().unwrap();
    let recycle = format!("sed -i 1s/.*/{somebody_pid}/ postmaster.pid .s.PGSQL.5432.lock");
    output(account.command("sh").arg("-c").arg(recycle).current_dir(&cluster), COMMAND_LIMIT).await.unwrap();

    let second = Embedded::start(&scratch.data_dir()).await.unwrap();
    second.stop().await.unwrap();
    assert!(somebody.try_wait().unwrap().is_none(), "the stranger was not ours to end");
    somebody.kill().await.unwrap();
}

#[tokio::test]
async fn a_directory_nobody_else_can_enter_falls_back_or_says_so() {
    let scratch = Scratch::new();
    let closed = scratch.data_dir();
    fs::create_dir(&closed).unwrap();
    if is_root() {
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        let embedded = Embedded::start(&closed.join("data")).await.unwrap();
        let home = embedded.place.home.clone();
        assert!(home.starts_with("/var/lib/octo"), "{}", home.display());
        let elsewhere = Elsewhere(home);
        note(&mut connect(&embedded).await).await;
        embedded.stop().await.unwrap();

        fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
        let again = Embedded::start(&closed.join("data")).await.unwrap();
        assert_eq!(ask(&mut connect(&again).await, "SELECT word FROM note").await, "kept");
        again.stop().await.unwrap();
        drop(elsewhere);
        let _ = fs::remove_dir("/var/lib/octo"); // only when no other lives there
    } else {
        fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
        let error = Embedded::start(&closed.join("data")).await.unwrap_err();
        assert!(matches!(error, Error::Directory { .. }), "{error:?}");
        fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    }
}

#[tokio::test]
async fn a_data_directory_that_moves_finds_its_database_elsewhere() {
    if !is_root() {
        return; // nobody else falls back
    }
    let scratch = Scratch::new();
    let closed = scratch.data_dir();
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let embedded = Embedded::start(&closed.join("data")).await.unwrap();
    let elsewhere = Elsewhere(embedded.place.home.clone());
    note(&mut connect(&embedded).await).await;
    embedded.stop().await.unwrap();

    for moved in ["moved", "and moved again"] {
        let from = fs::read_dir(&closed).unwrap().next().unwrap().unwrap().path();
        fs::rename(from, closed.join(moved)).unwrap();
        let again = Embedded::start(&closed.join(moved)).await.unwrap();
        assert_eq!(again.place.home, elsewhere.0);
        assert_eq!(ask(&mut connect(&again).await, "SELECT word FROM note").await, "kept");
        again.stop().await.unwrap();
    }

    // a new data directory where the first one was is a new one
    let other = Embedded::start(&closed.join("data")).await.unwrap();
    let other_place = Elsewhere(other.place.home.clone());
    assert_ne!(other_place.0, elsewhere.0);
    other.stop().await.unwrap();

    // a restored one without what it leads to is no empty database
    fs::rename(&elsewhere.0, elsewhere.0.with_extension("away")).unwrap();
    let error = Embedded::start(&closed.join("and moved again")).await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error:?}");
    assert!(error.to_string().contains("bring it back"), "{error}");
    fs::rename(elsewhere.0.with_extension("away"), &elsewhere.0).unwrap();
    drop((elsewhere, other_place));
    let _ = fs::remove_dir("/var/lib/octo"); // only when no other lives there
}

#[tokio::test]
async fn a_fallback_of_before_there_were_notes_is_found_and_noted() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let closed = scratch.data_dir();
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let data_dir = closed.join("data");
    let embedded = Embedded::start(&data_dir).await.unwrap();
    note(&mut connect(&embedded).await).await;
    let home = embedded.place.home.clone();
    embedded.stop().await.unwrap();
    let by_path = place::fallback_by_path(&data_dir);
    fs::rename(&home, &by_path).unwrap();
    let elsewhere = Elsewhere(by_path.clone());
    place::forget_note(&data_dir, &by_path);

    let old = Embedded::start(&data_dir).await.unwrap();
    assert_eq!(old.place.home, by_path);
    old.stop().await.unwrap();
    fs::rename(&data_dir, closed.join("moved")).unwrap();
    let moved = Embedded::start(&closed.join("moved")).await.unwrap();
    assert_eq!(ask(&mut connect(&moved).await, "SELECT word FROM note").await, "kept");
    moved.stop().await.unwrap();
    drop(elsewhere);
    let _ = fs::remove_dir("/var/lib/octo");
}

#[tokio::test]
async fn a_cluster_its_user_can_no_longer_reach_is_not_replaced_by_an_empty_one() {
    let scratch = Scratch::new();
    let embedded = Embedded::start(&scratch.data_dir()).await.unwrap();
    embedded.stop().await.unwrap();
    fs::set_permissions(scratch.data_dir(), Permissions::from_mode(if is_root() { 0o700 } else { 0o000 }))
        .unwrap();
    let error = Embedded::start(&scratch.data_dir()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. } | Error::Directory { .. }), "{error:?}");
    fs::set_permissions(scratch.data_dir(), Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_path_too_long_or_too_odd_for_a_socket_gets_a_short_private_one() {
    let scratch = Scratch::new();
    for name in ["a, 'b' ü", &"long".repeat(30)] {
        let data_dir = scratch.data_dir().join(name);
        let embedded = Embedded::start(&data_dir).await.unwrap();
        let socket_dir = embedded.socket_dir().to_owned();
        let _elsewhere = Elsewhere(socket_dir.clone());
        let cluster = fs::metadata(embedded.data_path()).unwrap();
        let found = fs::metadata(&socket_dir).unwrap();
        assert!(socket_dir.as_os_str().len() < 100);
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o700, cluster.uid()));
        connect(&embedded).await.ping().await.unwrap();
        let command = Embedded::attach_or_start(&data_dir).await.unwrap();
        assert!(!command.owned());
        embedded.stop().await.unwrap();

        fs::set_permissions(&socket_dir, Permissions::from_mode(0o755)).unwrap();
        let error = Embedded::start(&data_dir).await.unwrap_err();
        assert!(matches!(error, Error::SocketDirectory { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn something_else_in_the_place_of_the_cluster_is_left_alone() {
    let scratch = Scratch::new();
    let cluster = scratch.data_dir().join("postgres");
    fs::create_dir_all(&cluster).unwrap();
    fs::write(cluster.join("letter.txt"), "mine").unwrap();
    let error = Embedded::start(&scratch.data_dir()).await.unwrap_err();
    assert!(matches!(error, Error::NotACluster { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(cluster.join("letter.txt")).unwrap(), "mine");
}

#[tokio::test]
#[ignore = "needs the network; run it in `unshare -m` with a tmpfs over /usr/lib/postgresql"]
async fn a_debian_without_binaries_downloads_them() {
    let scratch = Scratch::new();
    let embedded = Embedded::start(&scratch.data_dir()).await.unwrap();
    assert!(scratch.data_dir().join("postgres-binaries").exists());
    connect(&embedded).await.ping().await.unwrap();
    embedded.stop().await.unwrap();
}

#[test]
fn only_missing_libraries_are_wanted_of_a_package() {
    let depends =
        "locales | locales-all, libc6 (>= 2.36), libllvm14, libsystemd0 | libelogind0, libpq5:any (>= 15)";
    assert_eq!(binaries::libraries_of(depends), ["libsystemd0", "libpq5"]);
}
