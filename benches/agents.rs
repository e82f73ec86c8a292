//! What a user agent that was not seen before costs, and how often its label is wrong.
//!
//! `cargo bench --bench agents` takes the agents of `tests/data/agents.txt`, which are people's, and prints microseconds
//! each. `cargo bench --bench agents -- people=FILE programs=FILE` takes files, an agent a line, and shows who is
//! taken for the other kind; `config/bots/measure` fetches the large ones.

use std::{fs, hint::black_box, time::Instant};

use anyhow::Context;
use octo::visitor::{Enricher, Files, Signs};

const PEOPLE: &str = "tests/data/agents.txt";
const ROUNDS: usize = 5;
const SHOWN: usize = 50;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut files: Vec<_> = arguments.iter().filter_map(|argument| argument.split_once('=')).collect();
    if files.is_empty() {
        files.push(("people", PEOPLE));
    }
    for (kind, file) in files {
        let text = fs::read(file).with_context(|| format!("cannot read {file}"))?;
        let text = String::from_utf8_lossy(&text);
        let mut agents: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        agents.sort_unstable();
        agents.dedup();
        labels(file, &agents, kind == "programs")?;
        cost(&agents)?;
    }
    Ok(())
}

fn labels(file: &str, agents: &[&str], are_programs: bool) -> anyhow::Result<()> {
    let enricher = Enricher::open(&Files::default())?;
    let is_mistaken = |agent: &&&str| enricher.describe(&signs(agent)).is_bot != are_programs;
    let mistaken: Vec<_> = agents.iter().filter(is_mistaken).collect();
    let (count, other) = (mistaken.len(), if are_programs { "people" } else { "programs" });
    let share = 10_000.0 * count as f64 / agents.len() as f64;
    println!("{file}: {} distinct agents, {count} called {other}: {share:.2} in 10,000", agents.len());
    for agent in mistaken.iter().step_by(count.div_ceil(SHOWN).max(1)) {
        println!("    {agent}");
    }
    Ok(())
}

fn signs(user_agent: &str) -> Signs<'_> {
    Signs { user_agent, ..Signs::default() }
}

/// Each agent once a round, by an enricher that never saw it.
fn cost(agents: &[&str]) -> anyhow::Result<()> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let enricher = Enricher::open(&Files::default())?;
        let start = Instant::now();
        for agent in agents {
            black_box(enricher.describe(black_box(&signs(agent))));
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("    {:.2} us each, best of {ROUNDS} rounds", best * 1e6 / agents.len() as f64);
    Ok(())
}
