//! The image, the compose file and the unit: they agree on where octo is configured.

use std::{fs, path::Path};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn what_the_image_copies_is_in_its_context() {
    let (image, ignored) = (read("Dockerfile"), read(".dockerignore"));
    let mut copied = 0;
    for line in image.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let words: Vec<&str> =
            line.split_whitespace().skip(1).filter(|word| !word.starts_with("--")).collect();
        for source in &words[..words.len() - 1] {
            let let_in = format!("!{}", source.split('/').next().unwrap());
            assert!(ignored.lines().any(|line| line == let_in), "{source}: {ignored}");
            copied += 1;
        }
    }
    assert!(copied > 5, "{copied}");
}

#[test]
fn the_image_and_compose_name_the_file_where_every_command_looks_for_it() {
    let image = read("Dockerfile");
    assert!(image.contains("ENV OCTO_CONFIG=/etc/octo/octo.toml"), "{image}");
    assert!(!image.contains("\"--config\""), "a flag of the one command is not seen by the health check");
    assert!(read("docker-compose.yml").contains("OCTO_CONFIG: /etc/octo/octo.toml"));
    assert!(read("config/systemd/octo.service").contains("\nRestart=always\n"));
}
