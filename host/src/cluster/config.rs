//! Where the cluster's Redis is.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{Client, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo, TlsMode};

/// A cluster, and the node's name in it.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Where Redis is.
    pub redis: RedisUrl,
    /// The name of the cluster: several may share a Redis.
    pub name: String,
    /// The name of this node, for operators.
    pub node: String,
    /// Whether clients may resume connections, so that those of a node that has gone are expected back for a moment.
    pub clients_return: bool,
}

/// The address of a Redis: `redis://`, `rediss://` (TLS), or
/// `redis+sentinel://[:PASSWORD@]HOST:PORT,…/SERVICE[?username=…&password=…&db=…]`, where the password before a host is that
/// Sentinel's and the parameters are for the servers behind them; or `redis+cluster://[USER:PASSWORD@]HOST:PORT,…` for a Redis
/// Cluster, of which one that answers is enough. `rediss+sentinel://` and `rediss+cluster://` reach all of them by TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// With its password.
    url: String,
    servers: Servers,
}

#[derive(Clone, PartialEq, Eq)]
enum Servers {
    One,
    Sentinels(Sentinels),
    /// Some of the servers of a Redis Cluster, each as the URL of a Redis.
    Cluster(Vec<String>),
}

/// How the Redis is reached that takes writes now.
pub(super) enum Route {
    One(Box<Client>),
    Cluster(Vec<String>),
}

#[derive(Clone, PartialEq, Eq)]
struct Sentinels {
    /// Each as the URL of a Redis.
    hosts: Vec<String>,
    service: String,
    /// For the servers behind them.
    username: Option<String>,
    password: Option<String>,
    db: i64,
    has_tls: bool,
}

impl FromStr for RedisUrl {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        let servers = match url.split_once("://") {
            Some(("redis" | "rediss", _)) => {
                Client::open(url).map_err(|error| anyhow::anyhow!("it is not an address of Redis: {error}"))?;
                Servers::One
            }
            Some(("redis+sentinel", rest)) => Servers::Sentinels(Sentinels::parse(rest, false)?),
            Some(("rediss+sentinel", rest)) => Servers::Sentinels(Sentinels::parse(rest, true)?),
            Some(("redis+cluster", rest)) => Servers::Cluster(servers_of_cluster(rest, "redis")?),
            Some(("rediss+cluster", rest)) => Servers::Cluster(servers_of_cluster(rest, "rediss")?),
            _ => bail!(
                "it must begin with redis:// or rediss://, or one of them with +sentinel or +cluster before the colon"
            ),
        };
        Ok(Self { url: url.to_owned(), servers })
    }
}

/// The servers that follow the scheme `redis+cluster`, before which a user and a password for all may stand.
fn servers_of_cluster(rest: &str, scheme: &str) -> anyhow::Result<Vec<String>> {
    let (user, hosts) = match rest.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), rest),
    };
    let hosts = hosts.trim_end_matches('/').split(',').map(|host| {
        let url = format!("{scheme}://{user}{host}");
        // The error must not show a password.
        let checked = Client::open(url.as_str());
        checked.map_err(|error| anyhow::anyhow!("{host} is not the address of a server: {error}"))?;
        Ok(url)
    });
    hosts.collect()
}

impl Sentinels {
    /// What follows the scheme.
    fn parse(rest: &str, has_tls: bool) -> anyhow::Result<Self> {
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, service) = rest
            .rsplit_once('/')
            .context("it names no service: write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE, as in sentinel.conf")?;
        ensure!(!service.is_empty(), "the name of the service, after the last /, is empty");
        let scheme = if has_tls { "rediss" } else { "redis" };
        let hosts: Vec<_> = hosts.split(',').map(|host| format!("{scheme}://{host}")).collect();
        for (n, host) in hosts.iter().enumerate() {
            // The error must not show a password.
            Client::open(host.as_str())
                .map_err(|error| anyhow::anyhow!("number {} is not the address of a Sentinel: {error}", n + 1))?;
        }
        let service = service.to_owned();
        let mut sentinels = Self { hosts, service, username: None, password: None, db: 0, has_tls };
        for (name, value) in form_urlencoded::parse(parameters.as_bytes()) {
            match &*name {
                "username" => sentinels.username = Some(value.into_owned()),
                "password" => sentinels.password = Some(value.into_owned()),
                "db" => sentinels.db = value.parse().context("the parameter db must be a number")?,
                _ => bail!("there is no parameter {name:?} here: there are username, password and db"),
            }
        }
        Ok(sentinels)
    }

    /// A client of the server that takes writes now.
    async fn client(&self) -> anyhow::Result<Client> {
        let Self { hosts, service, username, password, db, has_tls } = self;
        let mut redis = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(*db);
        if let Some(username) = username {
            redis = redis.set_username(username);
        }
        if let Some(password) = password {
            redis = redis.set_password(password);
        }
        let mut node = SentinelNodeConnectionInfo::default().set_redis_connection_info(redis);
        if *has_tls {
            node = node.set_tls_mode(TlsMode::Secure);
        }
        let hosts = hosts.iter().map(String::as_str).collect();
        let mut sentinels = SentinelClient::build(hosts, service.clone(), Some(node), SentinelServerType::Master)?;
        Ok(sentinels.async_get_client().await?)
    }
}

impl RedisUrl {
    /// The way to the Redis that takes writes now, which Sentinel is asked for.
    ///
    /// # Errors
    /// Where no Sentinel names one.
    pub(super) async fn route(&self) -> anyhow::Result<Route> {
        match &self.servers {
            Servers::One => {
                let info = self.url.as_str().into_connection_info()?;
                let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
                Ok(Route::One(Client::open(info.set_redis_settings(redis))?.into()))
            }
            Servers::Sentinels(sentinels) => sentinels.client().await.map(|client| Route::One(client.into())),
            Servers::Cluster(servers) => Ok(Route::Cluster(servers.clone())),
        }
    }
}

/// Without passwords.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let without_user = |host: &str| host.rsplit_once('@').map_or(host, |(_, host)| host).to_owned();
        let Some((scheme, rest)) = self.url.split_once("://") else { return f.write_str("?") };
        match &self.servers {
            Servers::Sentinels(Sentinels { hosts, service, .. }) => {
                let hosts = hosts.iter().map(|host| host.split_once("://").map_or(&**host, |(_, host)| host));
                let hosts: Vec<_> = hosts.map(without_user).collect();
                write!(f, "{scheme}://{}/{service}", hosts.join(","))
            }
            Servers::One | Servers::Cluster(_) => write!(f, "{scheme}://{}", without_user(rest)),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_shown_without_its_password() {
        let url: RedisUrl = "redis://:secret@127.0.0.1:6379/0".parse().unwrap();
        assert_eq!(url.to_string(), "redis://127.0.0.1:6379/0");
        let url =
            "rediss+sentinel://:one@10.0.0.1:26379,:two@10.0.0.2:26379/main?username=roundhouse&password=thr%40e/";
        let url: RedisUrl = url.parse().unwrap();
        assert_eq!(format!("{url:?}"), "RedisUrl(rediss+sentinel://10.0.0.1:26379,10.0.0.2:26379/main)");
        let Servers::Sentinels(sentinels) = url.servers else { panic!("it has Sentinels") };
        let cluster: RedisUrl = "redis+cluster://:secret@10.0.0.1:7000,10.0.0.2:7000".parse().unwrap();
        assert_eq!(cluster.to_string(), "redis+cluster://10.0.0.1:7000,10.0.0.2:7000");
        let Servers::Cluster(servers) = cluster.servers else { panic!("it is a cluster") };
        assert_eq!(servers[1], "redis://:secret@10.0.0.2:7000");
        assert_eq!(sentinels.hosts[1], "rediss://:two@10.0.0.2:26379");
        assert_eq!(
            (sentinels.username.as_deref(), sentinels.password.as_deref()),
            (Some("roundhouse"), Some("thr@e/"))
        );
    }

    #[test]
    fn wrong_urls_say_what_to_write() {
        for (url, says) in [
            ("localhost:6379", "must begin with redis://"),
            ("redis+sentinel://10.0.0.1:26379", "names no service"),
            ("redis+sentinel://10.0.0.1:26379/", "is empty"),
            ("redis+sentinel://10.0.0.1:26379/main?pasword=x", "there are username, password and db"),
            ("redis+sentinel://:secret@:x/main", "number 1 is not the address of a Sentinel"),
            ("redis+cluster://10.0.0.1:7000,10.0.0.2:x", "10.0.0.2:x is not the address of a server"),
            ("redis://", "not an address"),
        ] {
            let error = url.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
