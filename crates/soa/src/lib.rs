//! The call path to a service: choose an instance, forward the request, stream the answer.
