//! Socket.IO's browser client at `/socket.io/socket.io.js`, the path from which Socket.IO's own servers serve it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, HeaderValue, LOCATION};
use hyper::{Method, StatusCode};

use crate::net::response::{Answer, body, error};

/// The files that the reference server serves beside its protocol. Each has a source map.
const BUNDLES: [&str; 4] = ["socket.io.js", "socket.io.min.js", "socket.io.esm.min.js", "socket.io.msgpack.min.js"];

/// The caching of a bundle: short, because a new bundle is deployed together with new pages.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=600");

/// The source from which browsers load the bundle.
#[derive(Debug, Clone, Default)]
pub enum ClientBundle {
    /// Not from this host.
    #[default]
    None,
    /// From this URL, to which the bundle's name is appended where it ends with a slash.
    Redirect(String),
    /// From this host: the files by their names.
    Files(HashMap<String, Bytes>),
}

impl ClientBundle {
    /// Reads the configured value: a URL, a file, or a folder like `client-dist` of the package `socket.io`. Paths are
    /// relative to `dir`.
    ///
    /// # Errors
    /// Where the file does not exist, or the folder contains none of the bundles.
    pub fn read(configured: &str, dir: &Path) -> Result<Self, String> {
        if configured.is_empty() {
            return Ok(Self::None);
        }
        if configured.starts_with("http://") || configured.starts_with("https://") {
            HeaderValue::from_str(configured).map_err(|_| format!("{configured:?} is not a URL"))?;
            return Ok(Self::Redirect(configured.to_owned()));
        }
        let path = dir.join(configured);
        let cannot = |error| format!("cannot read {}: {error}", path.display());
        let mut files = HashMap::new();
        if !path.is_dir() {
            let bundle = Bytes::from(fs::read(&path).map_err(cannot)?);
            for name in &BUNDLES[..2] {
                files.insert((*name).to_owned(), bundle.clone());
            }
            return Ok(Self::Files(files));
        }
        for name in BUNDLES.iter().flat_map(|name| [(*name).to_owned(), format!("{name}.map")]) {
            let file = path.join(&name);
            if file.exists() {
                files.insert(name, fs::read(&file).map_err(cannot)?.into());
            }
        }
        if files.is_empty() {
            return Err(format!("the folder {} has none of {}", path.display(), BUNDLES.join(", ")));
        }
        Ok(Self::Files(files))
    }

    /// The answer to a request for `path`; `None` unless `path` is a bundle below Socket.IO's path.
    pub(super) fn answer(&self, method: &Method, socketio_path: &str, path: &str) -> Option<Answer> {
        let name = path.strip_prefix(socketio_path)?.strip_prefix('/')?;
        let bundle = name.strip_suffix(".map").unwrap_or(name);
        if !BUNDLES.contains(&bundle) || !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let content_type =
            if bundle == name { "application/javascript; charset=utf-8" } else { "application/json; charset=utf-8" };
        let found = match self {
            Self::None => None,
            Self::Files(files) => files.get(name).map(|file| body(StatusCode::OK, content_type, file.clone())),
            Self::Redirect(url) if url.ends_with('/') => Some(redirect(&format!("{url}{name}"))),
            // A URL without a slash at its end is one file, the plain script: only the names of that script lead to it.
            Self::Redirect(url) => BUNDLES[..2].contains(&name).then(|| redirect(url)),
        };
        let mut answer = found.unwrap_or_else(|| {
            let message = format!(
                "this host does not serve {name}: take socket.io-client 4 from npm or from https://cdn.socket.io, or have \
                 the operator set socketio.client to a file, a folder (client-dist of the package socket.io) or a URL"
            );
            error(StatusCode::NOT_FOUND, "not_found", &message)
        });
        if answer.status() != StatusCode::NOT_FOUND {
            // Without CORS a page of another origin cannot load the bundle as a module.
            answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            answer.headers_mut().insert(CACHE_CONTROL, KEPT);
        }
        Some(answer)
    }
}

fn redirect(url: &str) -> Answer {
    let mut answer = body(StatusCode::FOUND, "text/plain; charset=utf-8", "");
    // The URL was checked when it was read, and the names are constants.
    if let Ok(url) = HeaderValue::from_str(url) {
        answer.headers_mut().insert(LOCATION, url);
    }
    answer
}
