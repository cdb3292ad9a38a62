//! URLs of Redis: of a single server, a cluster, or a server that sentinels monitor.

use redis::ConnectionAddr;
use redis::ConnectionInfo;
use redis::IntoConnectionInfo as _;
use redis::RedisConnectionInfo;
use redis::io::tcp::TcpSettings;

/// The forms of an address, for people.
pub(crate) const FORMS: &str = "\"redis://[USER:PASSWORD@]HOST:PORT[/DB]\", \"redis-cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT\" or \
     \"redis-sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER-NAME[/DB]\", with TLS rediss…";

/// Where Redis is: `redis://`, `redis-cluster://`, `redis-sentinel://` or, with TLS, `rediss…`.
#[derive(Clone)]
pub struct RedisUrl {
    /// The named nodes, at least one, with user and password of the servers.
    pub(crate) nodes: Vec<ConnectionInfo>,
    pub(crate) topology: Topology,
}

/// What the named nodes are.
#[derive(Clone)]
pub(crate) enum Topology {
    /// The server itself.
    Server,
    /// Some nodes of a cluster.
    Cluster,
    /// Sentinels, which know the address of the master of this name, with the sentinels' own credentials.
    Sentinel { master: String, credentials: Box<RedisConnectionInfo> },
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without credentials.
        write!(f, "RedisUrl({})", self.address())
    }
}

/// The parts of a URL; absent ones are empty.
struct Parts<'t> {
    scheme: &'static str,
    user: &'t str,
    hosts: &'t str,
    path: &'t str,
    query: &'t str,
}

impl RedisUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it. The URL itself is not repeated, because it may contain a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(not_an_address)?;
        let tls = scheme.starts_with("rediss");
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let parts = Parts { scheme: if tls { "rediss" } else { "redis" }, user, hosts, path, query };
        match scheme {
            "redis" | "rediss" => {
                let info = text.into_connection_info().map_err(|_bad| not_an_address())?;
                Ok(Self { nodes: vec![with_nodelay(info)], topology: Topology::Server })
            }
            "redis-cluster" | "rediss-cluster" => parts.cluster(),
            "redis-sentinel" | "rediss-sentinel" => parts.sentinel(),
            _ => Err(not_an_address()),
        }
    }

    /// Hosts and ports, for logs.
    pub fn address(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.addr().to_string()).collect();
        addresses.join(",")
    }

    /// A node of this address, reached like the named ones.
    pub(crate) fn node(&self, host: &str, port: u16) -> Option<ConnectionInfo> {
        let named = self.nodes.first()?;
        let host = host.to_owned();
        let addr = if let ConnectionAddr::TcpTls { insecure, tls_params, .. } = named.addr() {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        Some(named.clone().set_addr(addr))
    }
}

impl Parts<'_> {
    fn cluster(&self) -> Result<RedisUrl, String> {
        if !matches!(self.path, "" | "0") {
            return Err("names a database, and a cluster has only number 0; leave it out".to_owned());
        }
        if !self.query.is_empty() {
            return Err(format!("has a \"?\" with parameters, and a cluster's address has none; write {FORMS}"));
        }
        Ok(RedisUrl { nodes: self.nodes("")?, topology: Topology::Cluster })
    }

    fn sentinel(&self) -> Result<RedisUrl, String> {
        let (master, database) = self.path.split_once('/').unwrap_or((self.path, ""));
        if master.is_empty() {
            return Err(format!("does not name the master that the sentinels watch; write {FORMS}"));
        }
        let master = percent_encoding::percent_decode_str(master).decode_utf8().map_err(|_bad| not_an_address())?;
        let mut credentials = RedisConnectionInfo::default();
        for (name, value) in form_urlencoded::parse(self.query.as_bytes()) {
            credentials = match &*name {
                "sentinel-user" => credentials.set_username(value),
                "sentinel-password" => credentials.set_password(value),
                _ => {
                    return Err("has a parameter that is not known; a sentinel's address may have sentinel-user and \
                                sentinel-password"
                        .to_owned());
                }
            };
        }
        let topology = Topology::Sentinel { master: master.into_owned(), credentials: Box::new(credentials) };
        Ok(RedisUrl { nodes: self.nodes(database)?, topology })
    }

    fn nodes(&self, database: &str) -> Result<Vec<ConnectionInfo>, String> {
        let Self { scheme, user, .. } = self;
        let at = if user.is_empty() { "" } else { "@" };
        let node = |host: &str| {
            let text = format!("{scheme}://{user}{at}{host}/{database}");
            if host.is_empty() || host.contains('#') { None } else { text.into_connection_info().ok() }
        };
        self.hosts.split(',').map(|host| node(host).map(with_nodelay).ok_or_else(not_an_address)).collect()
    }
}

fn with_nodelay(info: ConnectionInfo) -> ConnectionInfo {
    info.set_tcp_settings(TcpSettings::default().set_nodelay(true))
}

fn not_an_address() -> String {
    format!("is not a Redis address such as {FORMS}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> String {
        RedisUrl::parse(text).expect(text).address()
    }

    #[test]
    fn an_address_names_a_server_nodes_of_a_cluster_or_sentinels() {
        assert_eq!(addresses("redis://redis.example"), "redis.example:6379");
        assert_eq!(addresses("rediss://:secret@redis.example:6380/2"), "redis.example:6380");
        assert_eq!(addresses("redis-cluster://a.example:7000,b.example"), "a.example:7000,b.example:6379");
        assert_eq!(addresses("redis-cluster://[::1]:7000/0"), "::1:7000");
        assert_eq!(
            addresses("redis-sentinel://a.example:26379,b.example:26379/orders"),
            "a.example:26379,b.example:26379"
        );
    }

    #[test]
    fn every_node_gets_user_password_and_database() {
        let cluster = RedisUrl::parse("rediss-cluster://us%40er:pass%2Fword@a.example,b.example").expect("an address");
        for node in &cluster.nodes {
            let redis = node.redis_settings();
            assert_eq!((redis.username(), redis.password(), redis.db()), (Some("us@er"), Some("pass/word"), 0));
            assert!(matches!(node.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
        }
        let found = cluster.node("c.example", 7001).expect("a node");
        assert_eq!(found.addr().to_string(), "c.example:7001");
        assert_eq!(found.redis_settings().password(), Some("pass/word"));
        assert!(matches!(found.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
    }

    #[test]
    fn sentinels_want_to_hear_something_else_than_servers() {
        let text = "redis-sentinel://user:server@a.example/the%20master/3?sentinel-user=watch&sentinel-password=a%26b";
        let url = RedisUrl::parse(text).expect("an address");
        let Topology::Sentinel { master, credentials } = &url.topology else { panic!("sentinels") };
        assert_eq!(master, "the master");
        assert_eq!((credentials.username(), credentials.password(), credentials.db()), (Some("watch"), Some("a&b"), 0));
        let server = url.nodes[0].redis_settings();
        assert_eq!((server.username(), server.password(), server.db()), (Some("user"), Some("server"), 3));
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for text in [
            "redis",
            "redis:",
            "redis://",
            "redis://redis.example:port",
            "redis-tunnel://redis.example",
            "redis-cluster://",
            "redis-cluster://a.example:hush,b.example",
            "redis-cluster://a.example,",
            "redis-cluster://,a.example",
            "redis-cluster://user:hush@",
            "redis-cluster://a.example/hush",
            "redis-cluster://a.example?password=hush",
            "rediss-cluster://a.example#insecure",
            "redis-sentinel://a.example",
            "redis-sentinel://a.example/",
            "redis-sentinel://a.example//3",
            "redis-sentinel://a.example/orders/hush",
            "redis-sentinel://a.example/orders?password=hush",
            "redis-sentinel://a.example/%ff",
        ] {
            let refused = RedisUrl::parse(text).expect_err(text);
            assert!(!refused.contains("hush"), "{text}: {refused}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for text in ["redis://:hush@a.example", "redis-cluster://u:hush@a.example,b.example"] {
            assert!(!format!("{:?}", RedisUrl::parse(text)).contains("hush"));
        }
        let sentinel = RedisUrl::parse("redis-sentinel://u:hush@a.example/m?sentinel-password=hush");
        assert!(!format!("{sentinel:?}").contains("hush"));
    }
}
