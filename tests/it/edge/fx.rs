//! `octo fx`: rates of currencies from files, and by hand.

use std::{io::Write as _, process::Output};

use crate::harness::{Database, Octo, OctoBuilder, Scratch};

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const HISTORY: &str = "Date,USD,CYP,RUB,\n2026-10-30,1.1172,N/A,N/A,\n2026-10-29,1.113,N/A,N/A,\n2022-03-01,1.1162,N/A,117.201,\n";

#[tokio::test]
async fn files_of_the_bank_are_imported_once_and_a_changed_rate_is_told() {
    let (database, scratch) = (Database::create("fx_import").await, Scratch::create());
    let octo: OctoBuilder = Octo::builder().database_url(database.url());
    let file = |name: &str, text: &str| {
        let path = scratch.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let import = async |path: &str| said(&octo.run(&["fx", "import", path]).await);

    let history = file("eurofxref-hist.csv", HISTORY);
    let (code, out, err) = import(&history).await;
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert!(err.contains("4 rates of 2022-03-01 to 2026-10-30: 4 new, 0 unchanged, 0 restated"), "{err}");

    // the same, packed
    let packed = scratch.dir().join("eurofxref-hist.zip");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&packed).unwrap());
    zip.start_file("eurofxref-hist.csv", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(HISTORY.as_bytes()).unwrap();
    zip.finish().unwrap();
    let (code, _, err) = import(packed.to_str().unwrap()).await;
    assert!(code == Some(0) && err.contains("0 new, 4 unchanged, 0 restated"), "{err}");

    // the newest day alone, by standard input: one rate is another, one is new
    let newest = "Date, USD, JPY, \n30 October 2026, 1.1173, 175.68, \n";
    let (code, out, err) = said(&octo.run_with_input(&["fx", "import", "-"], newest.as_bytes()).await);
    assert_eq!((code, out.as_str()), (Some(0), "USD 2026-10-30  1.1172 -> 1.1173\n"), "{err}");
    assert!(err.contains("1 new, 0 unchanged, 1 restated"), "{err}");

    let bad = file("bad.csv", "Date,USD\n2026-11-02,1.2\n2026-11-03,0\nyesterday,1.2\n");
    let (code, _, err) = import(&bad).await;
    assert_eq!(code, Some(1), "{err}");
    for part in
        ["line 3: USD: `0`", "line 4: `yesterday` is no day", "2 lines cannot be read; nothing was imported"]
    {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (_, out, _) = said(&octo.run(&["fx", "show", "--day", "2026-11-03"]).await);
    assert!(out.contains("1.1173  ECB, published on 2026-10-30") && !out.contains("2026-11-02"), "{out}");

    for (path, part) in [
        (file("page.html", "<html>"), "`Date,USD,JPY,..`"),
        (file("broken.zip", "PK\u{3}\u{4}broken"), "cannot unpack"),
        (scratch.dir().join("none.csv").to_str().unwrap().to_owned(), "cannot read"),
    ] {
        let (code, _, err) = import(&path).await;
        assert!(code == Some(1) && err.contains(part), "{path}: {err}");
    }
    let small = Octo::builder().database_url(database.url()).env("OCTO_MONEY__RATES_FILE_BYTES_MAX", "150");
    let (code, _, err) = said(&small.run(&["fx", "import", packed.to_str().unwrap()]).await);
    assert!(code == Some(1) && err.contains("longer than 150 bytes (money.rates_file_bytes_max)"), "{err}");
}

#[tokio::test]
async fn own_rates_are_set_and_what_holds_on_a_day_is_shown() {
    let (database, scratch) = (Database::create("fx_show").await, Scratch::create());
    let octo: OctoBuilder = Octo::builder().database_url(database.url());
    let run = async |args: &[&str]| said(&octo.run(args).await);
    let history = scratch.dir().join("hist.csv");
    std::fs::write(&history, HISTORY).unwrap();
    assert_eq!(run(&["fx", "import", history.to_str().unwrap()]).await.0, Some(0));

    let (code, _, err) = run(&["fx", "show", "--day", "2026-11-03", "--currency", "RUB"]).await;
    assert!(code == Some(1) && err.contains("RUB has no rate on 2026-11-03"), "{err}");
    let (code, _, err) = run(&["fx", "set", "rub", "95.5", "--from", "2026-10-01"]).await;
    assert!(code == Some(0) && err.contains("the rate of RUB from 2026-10-01 on is new"), "{err}");
    let (_, out, err) = run(&["fx", "set", "RUB", "96", "--from", "2026-10-01"]).await;
    assert_eq!(out, "RUB 2026-10-01  95.5 -> 96\n", "{err}");

    let (code, out, _) = run(&["fx", "show", "--day", "2026-11-03", "--json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    let wanted = serde_json::json!([
        { "currency": "RUB", "rate": "96", "day": "2026-10-01", "source": "manual" },
        { "currency": "USD", "rate": "1.1172", "day": "2026-10-30", "source": "ecb" },
    ]);
    assert_eq!((code, shown), (Some(0), wanted));
    let (_, out, _) = run(&["fx", "show", "--day", "2022-03-02", "--currency", "RUB"]).await;
    assert_eq!(out, "RUB           117.201  ECB, published on 2022-03-01\n");

    for args in [
        ["fx", "set", "EUR", "1", "--from", "2026-10-01"],
        ["fx", "set", "ZZZ", "1", "--from", "2026-10-01"],
        ["fx", "set", "UAH", "0", "--from", "2026-10-01"],
        ["fx", "set", "UAH", "48", "--from", "01.10.2026"],
    ] {
        assert_eq!(run(&args).await.0, Some(2), "{args:?}");
    }
}
