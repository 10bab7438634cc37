//! Which gRPC methods there are and which of them stream, read once from the
//! descriptors. It bounds the label values of metrics and tells deadlines apart.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// How a method speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MethodKind {
    /// One request, one response.
    Unary,
    /// A stream either way.
    Streaming,
}

/// One method: its full name (`headwater.v1.RoomService/GetRoom`) and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) kind: MethodKind,
}

/// Stands for methods nobody serves, as semantic conventions have it.
const OTHER: Method = Method { name: "_OTHER", kind: MethodKind::Unary };

/// Methods of services that are not in our descriptors.
const FOREIGN: [(&str, MethodKind); 5] = [
    ("grpc.health.v1.Health/Check", MethodKind::Unary),
    ("grpc.health.v1.Health/List", MethodKind::Unary),
    ("grpc.health.v1.Health/Watch", MethodKind::Streaming),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", MethodKind::Streaming),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", MethodKind::Streaming),
];

impl Method {
    /// The method of a request's path, `/package.Service/Method`.
    pub(crate) fn of_path(path: &str) -> Self {
        let name = path.strip_prefix('/').unwrap_or(path);
        table()
            .get_key_value(name)
            .map_or(OTHER, |(name, kind)| Self { name: name.as_str(), kind: *kind })
    }
}

fn table() -> &'static BTreeMap<String, MethodKind> {
    static TABLE: OnceLock<BTreeMap<String, MethodKind>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let ours = FileDescriptorSet::decode(headwater_proto::FILE_DESCRIPTOR_SET)
            .expect("the descriptors are written by our own build");
        let mut table: BTreeMap<String, MethodKind> =
            FOREIGN.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        for file in &ours.file {
            for service in &file.service {
                for method in &service.method {
                    let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                    let streams = method.client_streaming() || method.server_streaming();
                    let kind = if streams { MethodKind::Streaming } else { MethodKind::Unary };
                    table.insert(name, kind);
                }
            }
        }
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_from_the_descriptors() {
        let get = Method::of_path("/headwater.v1.RoomService/GetRoom");
        assert_eq!(
            get,
            Method { name: "headwater.v1.RoomService/GetRoom", kind: MethodKind::Unary }
        );
        let attach = Method::of_path("/headwater.node.v1.SessionService/Attach");
        assert_eq!(attach.kind, MethodKind::Streaming);
    }

    #[test]
    fn paths_nobody_serves_share_one_name() {
        assert_eq!(Method::of_path("/a.b/c"), OTHER);
        assert_eq!(Method::of_path(""), OTHER);
    }
}
