//! The private PostgreSQL of a start without configuration: killed, broken, slow to start, and what octo does meanwhile.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    harness::{Octo, Scratch, Signal, eventually, signal},
    tracker::header,
};

/// Recovery and a start, on a busy machine.
const BACK: Duration = Duration::from_mins(1);
const STOP: Duration = Duration::from_mins(1);

/// The postmaster that works in the cluster of an octo.
fn postmaster(octo: &Octo) -> anyhow::Result<u32> {
    let recorded = fs::read_to_string(octo.data_dir().join("postgres/postmaster.pid"))?;
    let pid = recorded.lines().next().context("empty")?.trim().parse()?;
    ensure!(is_alive(pid), "{pid} is gone");
    Ok(pid)
}

/// A zombie does not count.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn admin_token(octo: &Octo) -> anyhow::Result<String> {
    Ok(fs::read_to_string(octo.data_dir().join("admin-token"))?.trim().to_owned())
}

async fn click(octo: &Octo) -> String {
    let answer = octo.get("/click?cid=demo").await;
    assert_eq!((answer.status().as_u16(), header(&answer, "x-octo-recorded")), (302, String::new()));
    header(&answer, "x-click-id")
}

async fn stored(octo: &Octo, ids: &[String]) {
    let token = admin_token(octo).unwrap();
    eventually(BACK, async || {
        for id in ids {
            let answer = octo.api(&token).get(&format!("/clicks/{id}")).send().await?;
            ensure!(answer.status() == 200, "{id}: {}", answer.status());
        }
        Ok(())
    })
    .await;
}

async fn health_of(octo: &Octo, component: &str) -> anyhow::Result<(String, String)> {
    let health: Value = octo.get("/health").await.json().await?;
    let components = health["components"].as_array().context("components")?;
    let found = components.iter().find(|c| c["name"] == component).context("no such component")?;
    Ok((found["status"].as_str().unwrap().to_owned(), found["detail"].as_str().unwrap().to_owned()))
}

async fn is_up(octo: &Octo) {
    eventually(BACK, async || {
        let (status, detail) = health_of(octo, "private postgres").await?;
        ensure!(status == "ok", "{detail}");
        Ok(())
    })
    .await;
}

async fn stop(octo: &mut Octo) {
    octo.sigterm();
    assert!(octo.wait_exit(STOP).await.success(), "{}", octo.stderr());
}

/// An octo that has redirected and saved its campaigns, and was stopped.
async fn stopped_octo(builder: crate::harness::OctoBuilder) -> Octo {
    let mut octo = builder.start().await;
    eventually(BACK, async || {
        ensure!(octo.data_dir().join("campaigns.json").exists() && admin_token(&octo).is_ok());
        Ok(())
    })
    .await;
    stop(&mut octo).await;
    octo
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_private_postgres_is_back_by_itself_and_every_click_is_stored() {
    let mut octo = Octo::builder().start().await;
    let mut ids = vec![click(&octo).await];
    for round in 1..=2 {
        let before = eventually(BACK, async || postmaster(&octo)).await;
        signal(Signal::Kill, &[before]);
        let killed = Instant::now();
        eventually(BACK, async || {
            ids.push(click(&octo).await);
            let now = postmaster(&octo)?;
            ensure!(now != before && health_of(&octo, "private postgres").await?.0 == "ok", "not back yet");
            Ok(())
        })
        .await;
        println!(
            "round {round}: back after {:?}, {} clicks so far, each redirected",
            killed.elapsed(),
            ids.len()
        );
        stored(&octo, &ids).await;
    }
    let metrics = octo.metrics().await;
    for line in ["octo_embedded_postgres_up 1", "octo_embedded_postgres_restarts_total 2"] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    assert!(octo.stderr().contains("the private PostgreSQL has ended and is being started again"));
    let last = postmaster(&octo).unwrap();
    stop(&mut octo).await;
    assert!(!is_alive(last), "it is stopped with octo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_postgres_is_looked_after_too() {
    let mut octo = Octo::builder().start().await;
    click(&octo).await;
    let orphan = postmaster(&octo).unwrap();
    octo.kill9().await;
    octo.start_again().await;
    is_up(&octo).await;
    assert_eq!(postmaster(&octo).unwrap(), orphan, "it is nobody's child, and adopted");
    signal(Signal::Kill, &[orphan]);
    let id = click(&octo).await;
    stored(&octo, &[id]).await;
    let successor = postmaster(&octo).unwrap();
    assert_ne!(successor, orphan);
    stop(&mut octo).await;
    assert!(!is_alive(successor));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_another_version_stops_a_first_start_and_no_other() {
    let mut octo = stopped_octo(Octo::builder()).await;
    let (version, campaigns) =
        (octo.data_dir().join("postgres/PG_VERSION"), octo.data_dir().join("campaigns.json"));
    let right = fs::read_to_string(&version).unwrap();
    fs::write(&version, "9\n").unwrap();

    octo.start_again().await;
    let id = click(&octo).await;
    eventually(BACK, async || {
        let said = octo.stderr();
        let remedy = "needs PostgreSQL 9; install that version or point PGBIN at its binaries";
        ensure!(said.contains("the private PostgreSQL cannot be started") && said.contains(remedy), "{said}");
        let (status, detail) = health_of(&octo, "private postgres").await?;
        ensure!(status == "degraded" && detail.contains(remedy), "{detail}");
        ensure!(said.contains("is ready after"), "not announced yet: {said}");
        Ok(())
    })
    .await;
    let line =
        octo.stderr().lines().rev().find(|l| l.trim_start().starts_with("PostgreSQL ")).unwrap().to_owned();
    assert!(line.contains("IS BEING STARTED") || line.contains("CANNOT BE STARTED"), "the truth: {line}");
    // a stop in between ends at once, and the click stays
    stop(&mut octo).await;

    fs::rename(&campaigns, campaigns.with_extension("aside")).unwrap();
    let output = octo.run(&["serve"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("octo: the data in") && said.contains("needs PostgreSQL 9"), "{said}");
    fs::rename(campaigns.with_extension("aside"), &campaigns).unwrap();

    fs::write(&version, right).unwrap();
    octo.start_again().await;
    stored(&octo, &[id]).await;
    stop(&mut octo).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_cluster_is_tried_again_and_comes_up_once_it_is_mended() {
    let mut octo = stopped_octo(Octo::builder()).await;
    let control = octo.data_dir().join("postgres/global/pg_control");
    fs::rename(&control, control.with_extension("aside")).unwrap();
    octo.start_again().await;
    let id = click(&octo).await;
    eventually(BACK, async || {
        let (status, detail) = health_of(&octo, "private postgres").await?;
        ensure!(status == "degraded" && detail.contains("stopped while starting"), "{detail}");
        Ok(())
    })
    .await;
    fs::rename(control.with_extension("aside"), &control).unwrap();
    is_up(&octo).await;
    stored(&octo, &[id]).await;
    assert!(octo.stderr().contains("the private PostgreSQL is running now"), "{}", octo.stderr());
    stop(&mut octo).await;
}

/// Programs of PostgreSQL of which `postgres` never takes a connection.
fn postgres_that_never_starts(dir: &Path) -> PathBuf {
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    for (name, script) in [
        ("initdb", "#!/bin/sh\nexit 1\n"),
        (
            "postgres",
            "#!/bin/sh\n[ \"$1\" = --version ] && { echo 'postgres (PostgreSQL) 15.0'; exit; }\nexec sleep 300\n",
        ),
    ] {
        fs::write(bin.join(name), script).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    bin
}

#[tokio::test]
async fn a_stop_while_postgres_is_starting_ends_both() {
    let data = Scratch::create();
    let at = data.dir().join("data");
    let octo = stopped_octo(Octo::builder().data_dir(&at)).await;
    let version = fs::read_to_string(at.join("postgres/PG_VERSION")).unwrap();
    drop(octo);
    let tools = Scratch::create();
    let bin = postgres_that_never_starts(tools.dir());
    let script =
        fs::read_to_string(bin.join("postgres")).unwrap().replace("15.0", &format!("{}.0", version.trim()));
    fs::write(bin.join("postgres"), script).unwrap();

    let mut octo = Octo::builder().data_dir(&at).env("PGBIN", &bin).start().await;
    let child = eventually(BACK, async || {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", octo.pid()))?;
        let all = fs::read_dir(format!("/proc/{}/task", octo.pid()))?.flatten();
        let all: String =
            all.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
        let is_sleep =
            |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "sleep\n");
        let found = all.split(' ').find(is_sleep).with_context(|| format!("no child: {children}"))?;
        Ok(found.parse::<u32>()?)
    })
    .await;
    assert_eq!(health_of(&octo, "private postgres").await.unwrap().0, "degraded");
    click(&octo).await;
    let asked = Instant::now();
    stop(&mut octo).await;
    println!("stopped {:?} after it was asked", asked.elapsed());
    assert!(!is_alive(child), "nothing of the start is left");
}

#[tokio::test]
async fn a_token_that_cannot_be_kept_is_not_made_and_one_made_before_a_crash_is_found() {
    let data = Scratch::create();
    let at = data.dir().join("data");
    // nobody can write a file where a directory is, not even root
    fs::create_dir_all(at.join("admin-token.new/in the way")).unwrap();
    let mut octo = Octo::builder().data_dir(&at).start().await;
    let tokens = async || String::from_utf8(octo.run(&["token", "list"]).await.stdout).unwrap();
    eventually(BACK, async || {
        let tries = octo.stderr().matches("cannot set up the admin token yet").count();
        ensure!(tries >= 2, "{tries} tries");
        Ok(())
    })
    .await;
    assert_eq!(tokens().await, "", "no token for an attempt that failed");
    fs::remove_dir_all(at.join("admin-token.new")).unwrap();
    let token = eventually(BACK, async || admin_token(&octo)).await;
    assert_eq!(tokens().await.lines().count(), 1);
    stop(&mut octo).await;

    // as after a crash between the database and the last step
    fs::rename(at.join("admin-token"), at.join("admin-token.new")).unwrap();
    octo.start_again().await;
    assert_eq!(eventually(BACK, async || admin_token(&octo)).await, token);
    is_up(&octo).await;
    let listed = octo.api(&token).get("/tokens").send().await.unwrap();
    assert_eq!(listed.status(), 200);
    let list: Value = listed.json().await.unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
    stop(&mut octo).await;
}
