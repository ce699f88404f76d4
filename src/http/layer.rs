//! The layer as a host applies it.

use std::sync::Arc;

use tower_layer::Layer;

use super::{registry::Registry, service::HealService};

/// Guards the services it is applied to: ticket, user limit, admission, deadline, valid replies.
///
/// It may be applied to a whole router, to single routes, or outside a router; a request that passes it twice
/// is guarded once. Its services are infallible: they answer for whatever goes wrong inside.
#[derive(Clone, Debug)]
pub struct HealLayer(Arc<Registry>);

impl HealLayer {
    /// The layer over `registry`; layers over the same registry are one.
    #[must_use]
    pub const fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }
}

impl<S> Layer<S> for HealLayer {
    type Service = HealService<S>;

    fn layer(&self, inner: S) -> HealService<S> {
        HealService::new(inner, Arc::clone(&self.0))
    }
}
