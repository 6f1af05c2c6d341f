//! Requests of one client over HTTP/2, which hyper speaks. Between here and the target they are as those of HTTP/1.1.

use std::rc::Rc;

use http::{HeaderValue, Method, StatusCode, header};
use http1::{Framing, RequestHead};
use hyper::body::{Body, Incoming};

use crate::body::{AnswerBody, RequestBody};
use crate::client::Client;
use crate::lane::Lane;
use crate::message::{Answer, Request};
use crate::reason::Reason;
use crate::stream_body::{Outflow, StreamBody};
use crate::{answer, forward, grpc};

pub(crate) async fn answer(
    lane: &Rc<Lane>,
    client: &Rc<Client>,
    outflow: &Rc<Outflow>,
    request: http::Request<Incoming>,
) -> http::Response<StreamBody> {
    let busy = client.begin();
    let is_head = *request.method() == Method::HEAD;
    let mut is_call = false;
    let answer = match head_of(&request) {
        Ok(head) => {
            is_call = grpc::is_grpc(&head.fields);
            let request = Request { head: Rc::new(head), body: RequestBody::http2(request.into_body()) };
            forward::handle(lane, client, request, Some(busy)).await
        }
        Err(reason) => {
            lane.note_made(reason, client, None, std::time::Instant::now());
            answer::made(reason)
        }
    };
    let answer = match answer.made {
        Some(reason) if is_call => grpc::made(reason),
        _ => answer,
    };
    response_of(answer, is_head, outflow)
}

fn head_of(request: &http::Request<Incoming>) -> Result<RequestHead, Reason> {
    let mut lengths = request.headers().get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next().map(|length| length.to_str().ok().and_then(|length| length.parse::<u64>().ok()));
    let framing = match (length, request.body().is_end_stream()) {
        (None, true) => Framing::Bodiless(None),
        (None, false) => Framing::Chunked,
        (Some(Some(0)), true) => Framing::Length(0),
        (Some(Some(length)), false) if lengths.next().is_none() => Framing::Length(length),
        _ => return Err(Reason::BadRequest),
    };
    let uri = request.uri();
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut head = RequestHead::new(request.method().clone(), target, uri.authority().map(|authority| authority.as_str()), framing);
    head.fields.extend_from_map(request.headers());
    Ok(head)
}

fn response_of(answer: Answer, is_head: bool, outflow: &Rc<Outflow>) -> http::Response<StreamBody> {
    let Answer { head, body, .. } = answer;
    let mut headers = head.fields.to_map();
    // A status without a message is one block of fields, and has no length (gRPC: Trailers-Only).
    let is_status = grpc::status(&head.fields).is_some() && matches!(head.framing, Framing::Length(0));
    if let Framing::Length(length) | Framing::Bodiless(Some(length)) = head.framing
        && !is_status
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let body = if is_head { AnswerBody::Empty } else { body };
    let mut response = http::Response::new(StreamBody::new(body, outflow));
    *response.status_mut() = head.status;
    *response.headers_mut() = headers;
    debug_assert_ne!(head.status, StatusCode::SWITCHING_PROTOCOLS, "HTTP/2 has no upgrade");
    response
}
