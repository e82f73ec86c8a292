//! The image, the compose file and the unit: they agree on where octo is configured.

use std::{fs, path::Path};

#[test]
fn the_image_and_compose_name_the_file_where_every_command_looks_for_it() {
    let read = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let image = read("Dockerfile");
    assert!(image.contains("ENV OCTO_CONFIG=/etc/octo/octo.toml"), "{image}");
    assert!(!image.contains("\"--config\""), "a flag of the one command is not seen by the health check");
    assert!(read("docker-compose.yml").contains("OCTO_CONFIG: /etc/octo/octo.toml"));
    assert!(read("config/systemd/octo.service").contains("\nRestart=always\n"));
}
