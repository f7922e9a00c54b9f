//! Mirrors of package indexes: to be read, and nothing else.

use egress::{NetworkGrant, Origin};
use http::{Request, Response, StatusCode, header};
use url::Url;

use crate::Face;
use crate::answer::{Answered, relinked, streamed, with_head, without_body};
use crate::asked::Asked;
use crate::fetch::{Ask, granted};
use crate::gateway::Shared;
use crate::links::Links;
use crate::refusal::Refusal;

const PYPI: &str = "https://pypi.org";
const PYPI_FILES: &str = "https://files.pythonhosted.org";
const NPM: &str = "https://registry.npmjs.org";
const CONDA: &str = "https://conda.anaconda.org";
const CONDA_MAIN: &str = "https://repo.anaconda.com";

/// Where files of PyPI are on the gateway. Its own paths have no such part.
const FILES: &str = "/files";

/// Paths of PyPI: the index, release information, and where mirrors with relative links have their files.
const PYPI_PATHS: [&str; 4] = ["simple", "pypi", "integrity", "packages"];

/// What the indexes may be asked at.
#[derive(Debug)]
pub(crate) struct Indexes {
    pypi: Vec<NetworkGrant>,
    npm: Vec<NetworkGrant>,
    conda: Vec<NetworkGrant>,
}

impl Indexes {
    pub(crate) fn new() -> Self {
        let conda = [CONDA, CONDA_MAIN, "https://*.anaconda.org", "https://*.anaconda.com"];
        Self {
            pypi: granted(&[PYPI, PYPI_FILES], "GET HEAD"),
            npm: granted(&[NPM], "GET HEAD"),
            conda: granted(&conda, "GET HEAD"),
        }
    }
}

/// Where a path of the gateway really is.
struct Place {
    origin: &'static str,
    /// What stands before the path on the gateway.
    prefix: &'static str,
    /// Whether it is a page with links, and not a file.
    is_page: bool,
}

impl Face {
    /// The origin that a refusal is about.
    pub(crate) fn origin(self) -> &'static str {
        match self {
            Self::Pypi => PYPI,
            Self::Hub => crate::hub::HUB,
            Self::Proxy => "(a proxy's)",
            Self::Npm => NPM,
            Self::Conda => CONDA,
        }
    }
}

impl Shared {
    /// Answers for an index.
    pub(crate) async fn packages(
        &self,
        face: Face,
        here: &str,
        request: Request<hyper::body::Incoming>,
    ) -> Result<Response<Answered>, Refusal> {
        let (head, body) = request.into_parts();
        let mut asked = Asked::read(&head, face)?;
        if !asked.reads() {
            let reason = format!("{} is read only through the gateway: GET and HEAD", face.origin());
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, reason));
        }
        without_body(&body)?;
        if matches!(face, Face::Npm | Face::Conda) && !self.more_indexes {
            return Err(Refusal::forbidden(format!("{} is not switched on in the settings", face.origin())));
        }
        let Place { origin, prefix, is_page } = place(face, &asked)?;
        if is_page {
            // A part of a page has no links that could be told.
            asked.headers.remove(header::RANGE);
            asked.headers.remove(header::IF_RANGE);
        }
        let grants = match face {
            Face::Npm => &self.indexes.npm,
            Face::Conda => &self.indexes.conda,
            _ => &self.indexes.pypi,
        };
        let url = asked.url(origin, prefix)?;
        let Asked { method, headers, .. } = asked;
        let ask = Ask {
            method,
            url,
            headers,
            body: bytes::Bytes::new(),
            grants,
            credential: None,
            packed: is_page,
        };
        let answer = self.ask(ask, |_, _| true).await?;
        if answer.status.is_redirection() && answer.status != StatusCode::NOT_MODIFIED {
            return Err(Refusal::new(StatusCode::BAD_GATEWAY, format!("{origin} redirects to nowhere")));
        }
        let (status, mut headers) = (answer.status, answer.headers.clone());
        let has_links = is_page && headers.get(header::CONTENT_TYPE).is_some_and(is_text_with_links);
        if !has_links {
            return Ok(with_head(status, &headers, streamed(answer)));
        }
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
        let links = self.links(face, here)?;
        Ok(with_head(status, &headers, relinked(answer, links)))
    }

    /// The links of an index's pages, and where they lead on the gateway.
    fn links(&self, face: Face, here: &str) -> Result<Links, Refusal> {
        let there = match face {
            Face::Pypi => vec![(PYPI, String::new()), (PYPI_FILES, FILES.to_owned())],
            Face::Npm => vec![(NPM, String::new())],
            _ => Vec::new(),
        };
        let mut pairs = Vec::new();
        for (origin, path) in there {
            let url = Url::parse(origin).map_err(|e| Refusal::bad(e.to_string()))?;
            let places = self.egress.places_of(&Origin::of(&url)?);
            pairs.extend(places.into_iter().map(|from| (from, format!("{here}{path}"))));
        }
        Ok(Links::new(&pairs))
    }
}

/// Where a path is, if it is one of an index.
fn place(face: Face, asked: &Asked) -> Result<Place, Refusal> {
    let place = |origin, is_page| Ok(Place { origin, prefix: "", is_page });
    match (face, asked.parts().as_slice()) {
        (Face::Pypi, ["files", _, ..]) if asked.path.starts_with("/files/") => {
            Ok(Place { origin: PYPI_FILES, prefix: FILES, is_page: false })
        }
        (Face::Pypi, [first, ..]) if PYPI_PATHS.contains(first) => place(PYPI, *first != "packages"),
        (Face::Npm, [_, ..]) => place(NPM, !asked.parts.iter().any(|part| part == "-")),
        (Face::Conda, ["pkgs", _, ..]) => place(CONDA_MAIN, false),
        (Face::Conda, [_, _, ..]) => place(CONDA, false),
        _ => Err(Refusal::missing(format!("no such path on the mirror of {}", face.origin()))),
    }
}

/// HTML or JSON, in whatever dress.
fn is_text_with_links(kind: &http::HeaderValue) -> bool {
    let kind = kind.to_str().unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind == "text/html" || kind.ends_with("+html") || kind.ends_with("json")
}
