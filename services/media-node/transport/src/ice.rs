//! ICE-lite (RFC 8445 §2.5): answers authenticated Binding requests, remembers
//! which paths they came by and which of them the peer nominated. Sends no
//! checks of its own.

use std::time::{Duration, Instant};

use crate::path::Path;
use crate::stun::{BindingKind, BindingView, StunError, binding_success};

/// Valid paths kept per transport. A browser on several networks shows a
/// handful of candidate pairs; beyond the bound the least recently confirmed
/// path gives way, the selected one never.
pub const PATHS_MAX: usize = 8;

/// How long a path stays valid without an authenticated request (RFC 7675 §5.1).
pub const CONSENT_EXPIRY: Duration = Duration::from_secs(30);

/// The short-term credentials of one end (RFC 8445 §5.3).
///
/// The password has no `Debug`: it is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// User fragment: 4 to 256 ICE characters.
    pub ufrag: String,
    /// Password: 22 to 256 ICE characters.
    pub pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// What an accepted request led to.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The success response, to be sent back by the path the request came by.
    pub response: Vec<u8>,
    /// The newly selected path, if this request changed it.
    pub selected: Option<Path>,
}

/// What the passing of time did to the selected path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    Unchanged,
    /// Another path took over.
    Moved(Path),
    /// The last path is gone.
    NoPath,
}

#[derive(Debug, Clone, Copy)]
struct ValidPath {
    path: Path,
    confirmed_at: Instant,
}

/// The server's side of ICE for one peer.
#[derive(Debug)]
pub(crate) struct IceLite {
    active: IceCredentials,
    /// Credentials of a restart that the peer has not used yet.
    pending: Option<IceCredentials>,
    paths: Vec<ValidPath>,
    selected: Option<Path>,
}

impl IceLite {
    pub fn new(active: IceCredentials) -> Self {
        Self { active, pending: None, paths: Vec::new(), selected: None }
    }

    /// Starts answering `credentials` as well; the old ones go when the peer
    /// first uses the new (RFC 8445 §9). A second restart replaces an unused one.
    pub fn restart(&mut self, credentials: IceCredentials) {
        self.pending = Some(credentials);
    }

    /// The fragments that are answered: the active one, then a pending one.
    pub fn local_ufrags(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.active)
            .chain(&self.pending)
            .map(|credentials| credentials.ufrag.as_str())
    }

    /// Checks a request and only then remembers its path.
    ///
    /// The latest USE-CANDIDATE selects its path; before any, the first
    /// authenticated source is used, so that the handshake need not wait for
    /// nomination. ICE-CONTROLLING and ICE-CONTROLLED are ignored: a lite agent
    /// is always controlled and a conflict resolves at the full end (§6.1.1).
    pub fn handle_request(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
    ) -> Result<Accepted, StunError> {
        let request = BindingView::parse(datagram)?;
        if request.kind != BindingKind::Request {
            return Err(StunError::UnexpectedType);
        }
        let ufrag = request.local_ufrag().ok_or(StunError::UnknownUsername)?;
        let restarted = self.pending.as_ref().is_some_and(|pending| pending.ufrag == ufrag);
        let credentials = match &self.pending {
            Some(pending) if restarted => pending,
            _ if self.active.ufrag == ufrag => &self.active,
            _ => return Err(StunError::UnknownUsername),
        };
        request.verify(&credentials.pwd)?;

        let (ip, port) = path.mapped_address();
        let response = binding_success(request.transaction, ip, port, &credentials.pwd);
        if restarted && let Some(pending) = self.pending.take() {
            self.active = pending;
        }
        self.confirm(now, path);
        let selected =
            (request.use_candidate || restarted || self.selected.is_none()).then_some(path);
        Ok(Accepted { response, selected: selected.filter(|path| self.select(*path)) })
    }

    pub fn is_valid(&self, path: Path) -> bool {
        self.paths.iter().any(|valid| valid.path == path)
    }

    pub fn selected(&self) -> Option<Path> {
        self.selected
    }

    /// When the next path loses its consent.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.paths.iter().map(|valid| valid.confirmed_at + CONSENT_EXPIRY).min()
    }

    /// Drops paths without consent. If the selected one was among them, the
    /// most recently confirmed takes over.
    pub fn expire(&mut self, now: Instant) -> Expiry {
        self.paths.retain(|valid| valid.confirmed_at + CONSENT_EXPIRY > now);
        match self.selected {
            Some(selected) if !self.is_valid(selected) => {}
            Some(_) | None => return Expiry::Unchanged,
        }
        self.selected =
            self.paths.iter().max_by_key(|valid| valid.confirmed_at).map(|valid| valid.path);
        self.selected.map_or(Expiry::NoPath, Expiry::Moved)
    }

    fn confirm(&mut self, now: Instant, path: Path) {
        if let Some(valid) = self.paths.iter_mut().find(|valid| valid.path == path) {
            valid.confirmed_at = now;
            return;
        }
        if self.paths.len() == PATHS_MAX {
            let selected = self.selected;
            let oldest = self
                .paths
                .iter()
                .enumerate()
                .filter(|(_, valid)| Some(valid.path) != selected)
                .min_by_key(|(_, valid)| valid.confirmed_at)
                .map(|(index, _)| index);
            if let Some(index) = oldest {
                self.paths.swap_remove(index);
            }
        }
        self.paths.push(ValidPath { path, confirmed_at: now });
    }

    fn select(&mut self, path: Path) -> bool {
        self.selected.replace(path) != Some(path)
    }
}

#[cfg(test)]
mod tests;
