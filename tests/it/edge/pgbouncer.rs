//! Behind PgBouncer in transaction mode, where neither a prepared statement nor a setting outlives its transaction.

use std::time::Duration;

use serde_json::json;

use crate::{
    harness::{Octo, OctoBuilder, PgBouncer, PrivatePostgres, eventually, migrate},
    load::send_all,
    tracker::{OFFER, Table},
};

async fn octo(bouncer: &PgBouncer, set: impl FnOnce(OctoBuilder) -> OctoBuilder) -> Octo {
    let builder =
        Octo::builder().database_url(bouncer.url()).env("OCTO_DATABASE__PREPARED_STATEMENTS", "false");
    set(builder).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_pgbouncer_everything_works_on_few_shared_connections() {
    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let bouncer = PgBouncer::start(&postgres, 3).await;
    // two nodes with many connections each: theirs meet in the three of PgBouncer
    let (one, two) = tokio::join!(octo(&bouncer, |b| b), octo(&bouncer, |b| b));
    let token = one.admin_token().await;
    let mut statuses = std::collections::BTreeMap::<u16, u32>::new();
    for round in 0..10 {
        for (place, node) in [&one, &two].into_iter().enumerate() {
            let body = json!({ "key": format!("c{round}-{place}"), "name": "n",
                "offers": [{ "name": "o", "url": "https://offer.example/" }] });
            let make = node.api(&token).post("/campaigns").json(&body).send();
            let paths = ["/campaigns", "/clicks", "/events", "/tokens", "/dead-letters", "/system/queries"];
            let reads = paths.map(|path| node.api(&token).get(path).send());
            let (created, read) = tokio::join!(make, futures_util::future::join_all(reads));
            for response in read.into_iter().chain([created]) {
                *statuses.entry(response.unwrap().status().as_u16()).or_default() += 1;
            }
        }
    }
    assert_eq!(statuses, [(200, 120), (201, 20)].into(), "what the API answered");
    let click = |key: &str| format!("GET /click?cid={key} HTTP/1.1\r\nHost: t\r\n\r\n").into_bytes();
    for (node, key) in [(&one, "c9-1"), (&two, "c9-0")] {
        eventually(Duration::from_secs(20), async || {
            // no notification comes through PgBouncer: the other node's campaign is seen by polling
            anyhow::ensure!(node.get(&format!("/click?cid={key}")).await.status() == 302);
            Ok(())
        })
        .await;
        let answers = send_all(node.addr(), vec![click(key); 1500], 8).await;
        assert_eq!(answers.iter().filter(|a| a.status == 302).count(), 1500);
    }
    let pool = postgres.pool().await;
    eventually(Duration::from_secs(30), async || {
        let stored = Table::Clicks.count(&pool).await?;
        anyhow::ensure!(stored == 3002, "{stored} of 3002");
        Ok(())
    })
    .await;
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name = 'octo'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(open <= 3, "{open} connections");
    for node in [&one, &two] {
        let said = node.stderr();
        assert!(!said.contains("prepared statement") && !said.contains("ERROR"), "{said}");
    }
    println!("two nodes on {open} connections: API {statuses:?}, 3002 clicks stored");
}

#[tokio::test]
async fn migrations_go_past_pgbouncer_or_say_that_they_cannot() {
    let postgres = PrivatePostgres::start().await;
    let bouncer = PgBouncer::start(&postgres, 3).await;
    let builder =
        Octo::builder().database_url(bouncer.url()).env("OCTO_DATABASE__PREPARED_STATEMENTS", "false");
    let refused = builder.run(&["migrate"]).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("set database.direct_url"), "{said}");
    let direct = builder.env("OCTO_DATABASE__DIRECT_URL", postgres.url());
    assert!(direct.run(&["migrate"]).await.status.success());
    let octo = direct.start().await;
    octo.create_campaign("demo", OFFER).await;
    // a change by hand is heard of at once: notifications take the direct way too
    let pool = postgres.pool().await;
    sqlx::query("UPDATE campaigns SET status = 'paused'").execute(&pool).await.unwrap();
    eventually(Duration::from_secs(4), async || {
        anyhow::ensure!(octo.get("/click?cid=demo").await.status() == 404);
        Ok(())
    })
    .await;
}
