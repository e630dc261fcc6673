import Pipeline

extension Explainer {
    /// Which connection.
    package struct Question: Sendable, Equatable {
        package let to: Endpoint
        package let from: Endpoint
        package let first: FirstBytes
        package init(to: Endpoint, from: Endpoint, first: FirstBytes) {
            self.to = to
            self.from = from
            self.first = first
        }
    }

    /// What the client of an explained connection sends.
    package enum FirstBytes: Sendable, Equatable {
        /// A ClientHello without a name on a TLS listener, nothing on a raw one.
        case usual
        /// A ClientHello that asks for this name.
        case hello([UInt8])
        case bytes([UInt8])
    }
}
