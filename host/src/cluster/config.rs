//! Where the cluster's Redis is.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{Client, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo};

/// A cluster, and the node's name in it.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Where Redis is.
    pub redis: RedisUrl,
    /// The name of the cluster: several may share a Redis.
    pub name: String,
    /// The name of this node, for operators.
    pub node: String,
}

/// The address of a Redis: `redis://`, `rediss://` (TLS), or `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE`.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// With its password.
    url: String,
    sentinels: Option<(Vec<String>, String)>,
}

impl FromStr for RedisUrl {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        let sentinels = match url.split_once("://") {
            Some(("redis" | "rediss", _)) => {
                Client::open(url).map_err(|error| anyhow::anyhow!("it is not an address of Redis: {error}"))?;
                None
            }
            Some(("redis+sentinel", rest)) => {
                let (hosts, service) = rest.split_once('/').context(
                    "it names no service: write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE, as in sentinel.conf",
                )?;
                ensure!(!service.is_empty(), "the name of the service, after the last /, is empty");
                let hosts: Vec<_> = hosts.split(',').map(|host| format!("redis://{host}")).collect();
                for host in &hosts {
                    Client::open(host.as_str())
                        .map_err(|error| anyhow::anyhow!("{host} is not the address of a Sentinel: {error}"))?;
                }
                Some((hosts, service.to_owned()))
            }
            Some(("redis+cluster", _)) => {
                bail!("Redis Cluster is not supported yet: use one Redis, or several with Sentinel (redis+sentinel://)")
            }
            _ => bail!("it must begin with redis://, rediss:// or redis+sentinel://"),
        };
        Ok(Self { url: url.to_owned(), sentinels })
    }
}

impl RedisUrl {
    /// A client of the Redis that takes writes now, which Sentinel is asked for.
    ///
    /// # Errors
    /// Where no Sentinel names one.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        let Some((hosts, service)) = &self.sentinels else {
            let info = self.url.as_str().into_connection_info()?;
            let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            return Ok(Client::open(info.set_redis_settings(redis))?);
        };
        let redis = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(redis);
        let hosts = hosts.iter().map(String::as_str).collect();
        let mut sentinels = SentinelClient::build(hosts, service, Some(node), SentinelServerType::Master)?;
        Ok(sentinels.async_get_client().await?)
    }
}

/// Without the password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.url.split_once("://").zip(self.url.rsplit_once('@')) {
            Some(((scheme, _), (_, host))) => write!(f, "{scheme}://{host}"),
            None => f.write_str(&self.url),
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
    }

    #[test]
    fn wrong_urls_say_what_to_write() {
        for (url, says) in [
            ("localhost:6379", "must begin with redis://"),
            ("redis+sentinel://10.0.0.1:26379", "names no service"),
            ("redis+sentinel://10.0.0.1:26379/", "is empty"),
            ("redis+cluster://10.0.0.1:7000", "not supported yet"),
            ("redis://", "not an address"),
        ] {
            let error = url.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
}
