//! The layers of a configuration, later ones win: the defaults, a file, the environment, the command line. Each value
//! remembers where it came from, and a key that nobody knows is a fault that names the nearest one.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use serde_path_to_error::Segment;
use toml::{Table, Value};

use super::{Config, Error, LogFormat};

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Keys whose values are shown as `***`.
const SECRETS: [&str; 7] = [
    "database.url",
    "database.replica_urls",
    "database.direct_url",
    "redis.url",
    "redis.cluster_urls",
    "redis.sentinel_urls",
    "redis.password",
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `config/default.toml`
    Default,
    /// The file given by `--config`.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A file named by an environment variable ending in `_FILE`.
    SecretFile(String),
    /// A flag of the command line.
    Flag(&'static str),
}

/// What the command line may set.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
}

/// The configuration and the origin of each of its values.
#[derive(Clone)]
pub struct Loaded {
    /// The effective values.
    pub config: Config,
    layers: Layers,
}

impl Loaded {
    /// Merges defaults, `file`, `environment` (name, value pairs) and flags, and checks the result.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, Error> {
        let mut layers = Layers::defaults();
        let mut faults = Vec::new();
        if let Some(path) = file {
            layers.add_file(path, &mut faults);
        }
        layers.add_environment(environment, &mut faults);
        layers.add_flags(flags);
        if !faults.is_empty() {
            return Err(Error(faults));
        }
        let mut config = layers.clone().parse()?;
        if let Some(data_dir) = &flags.data_dir {
            config.server.data_dir.clone_from(data_dir); // as given: it may not be UTF-8
        }
        let faults = config.faults();
        if faults.is_empty() { Ok(Self { config, layers }) } else { Err(Error(faults)) }
    }
}

/// The environment as [`Loaded::load`] takes it. What is not UTF-8 is a fault in a variable of ours, and none of our
/// business in anybody else's.
pub fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, Error> {
    let mut texts = Vec::new();
    let mut faults = Vec::new();
    for (name, value) in variables {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => texts.push((name, value)),
            // without the value: it may be a password
            (Ok(name), Err(_)) if is_ours(&name) => faults.push(format!("{name} is not UTF-8")),
            (Err(name), _) if is_ours(&name.to_string_lossy()) => {
                faults.push(format!("the name {} is not UTF-8", name.display()));
            }
            _ => {}
        }
    }
    if faults.is_empty() { Ok(texts) } else { Err(Error(faults)) }
}

fn is_ours(name: &str) -> bool {
    let general = ["DATABASE_URL", "REDIS_URL", "PORT", "DATABASE_URL_FILE", "REDIS_URL_FILE"];
    general.contains(&name) || name.strip_prefix("OCTO_").is_some_and(|rest| rest.contains("__"))
}

/// `octo config print`: TOML, each value with its origin, secrets as `***`.
impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for (key, entry) in &self.layers.0 {
            let (head, name) = key.split_once('.').unwrap_or(("", key));
            if head != section {
                writeln!(f, "{}[{head}]", if section.is_empty() { "" } else { "\n" })?;
                section = head;
            }
            let value = if SECRETS.contains(&key.as_str()) && !is_empty(&entry.value) {
                "\"***\"".to_owned()
            } else {
                entry.value.to_string()
            };
            writeln!(f, "{:<44} # {}", format!("{name} = {value}"), entry.source)?;
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::SecretFile(name) => write!(f, "file named by {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// As `Display`: the secrets of the layers stay hidden.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone)]
struct Layers(BTreeMap<String, Entry>);

#[derive(Clone)]
struct Entry {
    value: Value,
    source: Source,
}

impl Layers {
    fn defaults() -> Self {
        let table: Table = DEFAULTS.parse().expect("config/default.toml is checked by a test");
        let mut keys = BTreeMap::new();
        for (section, values) in table {
            for (name, value) in values.as_table().into_iter().flatten() {
                let entry = Entry { value: value.clone(), source: Source::Default };
                keys.insert(format!("{section}.{name}"), entry);
            }
        }
        Self(keys)
    }

    fn add_file(&mut self, path: &Path, faults: &mut Vec<String>) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) => return faults.push(format!("{} cannot be read: {e}", path.display())),
        };
        let table: Table = match text.parse() {
            Ok(table) => table,
            // not the error's own text: it quotes the line, which may hold a password
            Err(e) => {
                let before = text.get(..e.span().map_or(0, |span| span.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                return faults.push(format!("{} is not TOML: line {line}: {}", path.display(), e.message()));
            }
        };
        for (section, values) in table {
            let Some(values) = values.as_table() else {
                faults.push(format!("{}: {section} must be a [section]", path.display()));
                continue;
            };
            for (name, value) in values {
                let key = format!("{section}.{name}");
                let Some(entry) = self.known(&key, &path.display().to_string(), faults) else { continue };
                if let Some(wanted) = misfit(&entry.value, value) {
                    // without the value: it may be a password
                    faults.push(format!("{}: {key} must be {wanted}", path.display()));
                } else {
                    *entry = Entry { value: value.clone(), source: Source::File(path.to_owned()) };
                }
            }
        }
    }

    fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
        faults: &mut Vec<String>,
    ) {
        let mut variables: Vec<_> = environment.into_iter().collect();
        // the general names first, so that octo's own win
        variables.sort_by_key(|(name, _)| name.starts_with("OCTO_"));
        for (name, value) in variables {
            let Some((key, from_file)) = self.key_of(&name) else { continue };
            let value = match read_value(&name, value, from_file) {
                Ok(value) => value,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            let value = if name == "PORT" { format!("0.0.0.0:{value}") } else { value };
            let Some(entry) = self.known(&key, &name, faults) else { continue };
            match like(&entry.value, &value) {
                Ok(value) => {
                    let source = if from_file { Source::SecretFile(name) } else { Source::Environment(name) };
                    *entry = Entry { value, source };
                }
                Err(wanted) => faults.push(format!("{name} must be {wanted}")),
            }
        }
    }

    /// The key that the environment variable `name` sets, and whether through a file.
    ///
    /// `OCTO_A__B_FILE` is a file for `a.b`, unless `a.b_file` is itself a key. One underscore
    /// (`OCTO_BIN`) is no key: such names belong to others.
    fn key_of(&self, name: &str) -> Option<(String, bool)> {
        let key = match name {
            "DATABASE_URL" => "database.url".to_owned(),
            "REDIS_URL" => "redis.url".to_owned(),
            "PORT" => "server.listen".to_owned(),
            _ => match name.strip_prefix("OCTO_").and_then(|rest| rest.split_once("__")) {
                Some((section, key)) => format!("{section}.{key}").to_ascii_lowercase(),
                None if name == "DATABASE_URL_FILE" || name == "REDIS_URL_FILE" => {
                    return self.key_of(name.strip_suffix("_FILE")?).map(|(key, _)| (key, true));
                }
                None => return None,
            },
        };
        match key.strip_suffix("_file") {
            Some(base) if !self.0.contains_key(&key) => Some((base.to_owned(), true)),
            _ => Some((key, false)),
        }
    }

    fn add_flags(&mut self, flags: &Flags) {
        let mut set = |key: &str, flag, value: Option<String>| {
            if let Some(value) = value {
                self.0.insert(
                    key.to_owned(),
                    Entry { value: Value::String(value), source: Source::Flag(flag) },
                );
            }
        };
        set("server.data_dir", "--data-dir", flags.data_dir.as_ref().map(|d| d.display().to_string()));
        set("server.listen", "--listen", flags.listen.clone());
        let format = flags.log_format.map(|f| if f == LogFormat::Json { "json" } else { "text" }.to_owned());
        set("log.format", "--log-format", format);
    }

    /// The entry of `key`, or a fault that names the nearest one.
    fn known(&mut self, key: &str, place: &str, faults: &mut Vec<String>) -> Option<&mut Entry> {
        if !self.0.contains_key(key) {
            let nearest = self
                .0
                .keys()
                .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
            let hint = nearest.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            faults.push(format!("{place}: there is no key `{key}`{hint}"));
        }
        self.0.get_mut(key)
    }

    /// Reads the values into their types. One that does not fit is a fault with its key and origin; its default
    /// takes its place, so that the next one is found too.
    fn parse(mut self) -> Result<Config, Error> {
        let defaults = Self::defaults();
        let mut faults = Vec::new();
        loop {
            let error = match serde_path_to_error::deserialize(self.to_value()) {
                Ok(config) if faults.is_empty() => return Ok(config),
                Ok::<Config, _>(_) => return Err(Error(faults)),
                Err(error) => error,
            };
            let (path, message) = (error.path(), error.inner().message());
            let names: Vec<_> = path.iter().take(2).map(Segment::to_string).collect();
            let key = names.join(".");
            let Some(entry) = self.0.get_mut(&key).filter(|entry| entry.source != Source::Default) else {
                faults.push(format!("{path}: {message}"));
                return Err(Error(faults));
            };
            let colon = if message.starts_with("is ") { "" } else { ":" };
            faults.push(format!("{key}{colon} {message} ({})", entry.source));
            entry.clone_from(&defaults.0[&key]);
        }
    }

    fn to_value(&self) -> Value {
        let mut root = Table::new();
        for (key, entry) in &self.0 {
            let (section, name) = key.split_once('.').expect("keys are made as section.name");
            let table = root.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Some(table) = table.as_table_mut() {
                table.insert(name.to_owned(), entry.value.clone());
            }
        }
        Value::Table(root)
    }
}

/// What `value` should be, if it is not of the same type as `example`.
fn misfit(example: &Value, value: &Value) -> Option<&'static str> {
    let is_texts = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_str));
    match example {
        Value::Integer(_) => (!value.is_integer()).then_some("a whole number"),
        Value::Boolean(_) => (!value.is_bool()).then_some("true or false"),
        Value::Array(_) => (!is_texts(value)).then_some("a list of strings"),
        _ => (!value.is_str()).then_some("a string"),
    }
}

fn read_value(name: &str, value: String, from_file: bool) -> Result<String, String> {
    if !from_file {
        return Ok(value);
    }
    std::fs::read_to_string(&value)
        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        // without its name: some put the secret itself there
        .map_err(|e| format!("{name} points to a file that cannot be read: {e}"))
}

/// `text` as a value of the same type as `example`; a list is separated by commas.
fn like(example: &Value, text: &str) -> Result<Value, &'static str> {
    match example {
        Value::Integer(_) => text.trim().parse().map(Value::Integer).map_err(|_| "a whole number"),
        Value::Boolean(_) => text.trim().parse().map(Value::Boolean).map_err(|_| "true or false"),
        Value::Array(_) => Ok(Value::Array(
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(Value::from).collect(),
        )),
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_str().is_some_and(str::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret;

    use super::*;

    fn load(env: &[(&str, &str)]) -> Result<Loaded, Error> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Loaded::load(None, env, &Flags::default())
    }

    #[test]
    fn the_embedded_defaults_are_valid() {
        let loaded = load(&[]).unwrap();
        assert_eq!(loaded.config.database.min_connections, 5);
        assert_eq!(loaded.config.database.max_connections, 32);
        assert!(loaded.config.database.url.is_none());
    }

    #[test]
    fn the_environment_wins_over_a_file_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my.toml");
        std::fs::write(&file, "[drain]\nbatch_rows = 7\n[cache]\npoll_interval_s = 9\n").unwrap();
        let env = [("OCTO_DRAIN__BATCH_ROWS".to_owned(), "8".to_owned())];
        let loaded = Loaded::load(Some(&file), env, &Flags::default()).unwrap();
        assert_eq!(loaded.config.drain.batch_rows, 8);
        assert_eq!(loaded.config.cache.poll_interval, Duration::from_secs(9));
        let text = loaded.to_string();
        assert!(
            text.contains("batch_rows = 8") && text.contains("# environment OCTO_DRAIN__BATCH_ROWS"),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_name() {
        let error = load(&[("OCTO_DATABASE__MAX_CONECTIONS", "3")]).unwrap_err().to_string();
        assert!(error.contains("did you mean `database.max_connections`?"), "{error}");
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let error = load(&[("OCTO_DRAIN__BATCH_ROWS", "many"), ("OCTO_X__Y", "1")]).unwrap_err().to_string();
        assert!(error.contains("2 faults") && error.contains("a whole number"), "{error}");
    }

    #[test]
    fn a_secret_comes_from_a_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("url");
        std::fs::write(&file, "postgres://u:canary@db/x\n").unwrap();
        let loaded = load(&[("DATABASE_URL_FILE", file.to_str().unwrap())]).unwrap();
        assert_eq!(loaded.config.database.url.as_ref().unwrap().expose_secret(), "postgres://u:canary@db/x");
        assert!(!format!("{loaded} {loaded:?} {:?}", loaded.config).contains("canary"));
    }

    #[test]
    fn a_list_in_the_environment_is_separated_by_commas() {
        let loaded = load(&[("OCTO_SERVER__TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.0/8")]).unwrap();
        assert_eq!(loaded.config.server.trusted_proxies.len(), 2);
    }

    #[test]
    fn redis_is_one_server_or_a_cluster_or_what_sentinel_names() {
        let one = ("REDIS_URL", "redis://a");
        let cluster = ("OCTO_REDIS__CLUSTER_URLS", "redis://:canary@a,redis://:canary@b");
        let error = load(&[one, cluster]).unwrap_err().to_string();
        assert!(error.contains("only one of redis.url"), "{error}");
        let loaded = load(&[cluster, ("OCTO_REDIS__PASSWORD", "canary")]).unwrap();
        assert_eq!(loaded.config.redis.cluster_urls.len(), 2);
        assert!(!format!("{loaded} {:?}", loaded.config).contains("canary"));
        let sentinel = ("OCTO_REDIS__SENTINEL_URLS", "redis://a:26379");
        let error = load(&[sentinel]).unwrap_err().to_string();
        assert!(error.contains("belong together"), "{error}");
        assert!(load(&[sentinel, ("OCTO_REDIS__SENTINEL_MASTER", "m")]).is_ok());
    }

    #[test]
    fn port_means_every_address() {
        assert_eq!(load(&[("PORT", "99")]).unwrap().config.server.listen.to_string(), "0.0.0.0:99");
    }

    #[test]
    fn what_is_not_utf_8_is_a_fault_of_our_variables_and_nobody_elses() {
        use std::os::unix::ffi::OsStringExt;
        let odd = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let (good, bad) = (OsString::from("LANG"), odd(b"tweety\xff"));
        for (name, value) in
            [(good.clone(), bad.clone()), (odd(b"X\xff"), bad.clone()), (odd(b"OCTO_BIN"), bad.clone())]
        {
            let texts = environment([(name, value), (good.clone(), OsString::from("C"))]).unwrap();
            assert_eq!(texts, [("LANG".to_owned(), "C".to_owned())]);
        }
        for name in ["DATABASE_URL", "REDIS_URL_FILE", "PORT", "OCTO_SERVER__DATA_DIR", "OCTO_NO__SUCH_KEY"] {
            let error = environment([(OsString::from(name), bad.clone())]).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} is not UTF-8")) && !error.contains("tweety"), "{error}");
        }
        let error = environment([(odd(b"OCTO_SERVER__LISTEN\xff"), good)]).unwrap_err().to_string();
        assert!(error.contains("is not UTF-8"), "{error}");
    }

    #[test]
    fn a_data_directory_is_taken_as_given_byte_for_byte() {
        use std::os::unix::ffi::OsStringExt;
        let data_dir = PathBuf::from(OsString::from_vec(b"data-\xff".to_vec()));
        let flags = Flags { data_dir: Some(data_dir.clone()), ..Flags::default() };
        let loaded = Loaded::load(None, [], &flags).unwrap();
        assert_eq!(loaded.config.server.data_dir, data_dir);
        assert_eq!(loaded.config.journal_dir(), data_dir.join("journal"));
    }

    #[test]
    fn each_url_of_a_server_is_looked_at_and_named_by_its_key() {
        for (name, key) in [
            ("DATABASE_URL", "database.url"),
            ("OCTO_DATABASE__DIRECT_URL", "database.direct_url"),
            ("OCTO_DATABASE__REPLICA_URLS", "database.replica_urls"),
        ] {
            let error = load(&[(name, "postgres://u:canary#x@db/octo")]).unwrap_err().to_string();
            assert!(error.contains(&format!("{key} contains `#`")) && !error.contains("canary"), "{error}");
        }
        for (name, key) in [("REDIS_URL", "redis.url"), ("OCTO_REDIS__CLUSTER_URLS", "redis.cluster_urls")] {
            let error = load(&[(name, "redis://:canary/x@cache")]).unwrap_err().to_string();
            assert!(error.contains(&format!("{key} contains `/`")) && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (name, value, wanted) in [
            ("DATABASE__MAX_CONNECTIONS", "1", "database.max_connections is 1, but must be at least 2"),
            ("SERVER__HEADER_TIMEOUT_MS", "99", "server.header_timeout_ms is 99, but must be at least 100"),
            ("SERVER__DRAIN_DELAY_MS", "-1", "server.drain_delay_ms is -1, but must be at least 0"),
            ("PRIVACY__ERASURE_KEEP_DAYS", "0", "privacy.erasure_keep_days is 0, but must be at least 1"),
            (
                "PRIVACY__RETENTION_DAYS",
                "36526",
                "privacy.retention_days is 36526, but must be at most 36525",
            ),
            ("TRACKING__DUPLICATE_WINDOW_S", "2592001", "but must be at most 2592000"),
            ("ADMISSION__JOURNAL_PERCENT_MAX", "101", "but must be at most 100"),
            (
                "SERVER__LISTEN_BACKLOG",
                "4294967296",
                "server.listen_backlog is 4294967296, which is too large",
            ),
            ("DRAIN__RETRY_MAX_MS", "99", "drain.retry_max_ms is 99, but must be at least 100"),
            ("DATABASE__MIN_CONNECTIONS", "33", "database.min_connections is larger than"),
            ("SERVER__LISTEN", "here", "server.listen: invalid socket address syntax"),
        ] {
            let name = format!("OCTO_{name}");
            let error = load(&[(&name, value)]).unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains("1 fault:"), "{name}: {error}");
        }
    }

    #[test]
    fn every_value_out_of_range_is_named_with_where_it_came_from() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my.toml");
        std::fs::write(&file, "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"ten\"]\n").unwrap();
        let env = [("OCTO_DRAIN__BATCH_ROWS".to_owned(), "0".to_owned())];
        let flags = Flags { listen: Some("8080".to_owned()), ..Flags::default() };
        let error = Loaded::load(Some(&file), env, &flags).unwrap_err().to_string();
        assert!(error.contains("3 faults"), "{error}");
        for wanted in [
            "server.trusted_proxies: `ten` is neither a network",
            &format!("(file {})", file.display()),
            "drain.batch_rows is 0, but must be at least 1 (environment OCTO_DRAIN__BATCH_ROWS)",
            "server.listen: invalid socket address syntax (flag --listen)",
        ] {
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_time_has_the_unit_that_its_key_ends_in() {
        let config = load(&[]).unwrap().config;
        assert_eq!(config.server.header_timeout, Duration::from_secs(10));
        assert_eq!(config.cache.poll_interval, Duration::from_secs(5));
        assert_eq!(config.database.partitions_ahead, Duration::from_hours(7 * 24));
    }
}
