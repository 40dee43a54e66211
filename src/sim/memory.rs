//! The in-memory front: the simulator as a [`Rest`] port.

use std::io;

use futures_util::future::BoxFuture;

use crate::{
    rest::{Rest, RestError, RestRequest, RestResponse},
    sim::{message::Request, simulator::Simulator},
};

/// The simulator without a network in between.
///
/// A lost answer is [`RestError::NoAnswer`]. Holding and slowness wait in tokio's time, so that a
/// test with paused time waits for nothing.
#[derive(Clone, Debug)]
pub struct SimRest(pub Simulator);

impl Rest for SimRest {
    fn call(&self, request: RestRequest) -> BoxFuture<'_, Result<RestResponse, RestError>> {
        let RestRequest { method, path, headers, body } = request;
        let request = Request::new(method, &path, headers, body.into_bytes());
        Box::pin(async move {
            let response = self.0.call(request).await.ok_or_else(lost)?;
            Ok(RestResponse {
                status: response.status,
                headers: response.headers,
                body: response.body,
            })
        })
    }
}

fn lost() -> RestError {
    RestError::NoAnswer {
        endpoint: "the simulator".to_owned(),
        source: Box::new(io::Error::from(io::ErrorKind::ConnectionReset)),
    }
}
