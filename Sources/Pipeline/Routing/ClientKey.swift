import Pipeline

/// The key of a route by ``ClientProtocol``: it stands where others have a name, so that the rules of names hold for it (one
/// owner, no order; R5, R8). No hostname has these bytes.
struct ClientKey {
    let client: ClientProtocol
    let port: UInt16

    init(_ client: ClientProtocol, at port: UInt16) {
        self.client = client
        self.port = port
    }

    /// Nil: it is none.
    init?(_ bytes: Bytes) {
        guard bytes.count == 4, let client = ClientProtocol(rawValue: bytes[3]) else { return nil }
        self.init(client, at: UInt16(bytes[1]) << 8 | UInt16(bytes[2]))
    }

    /// For people.
    var text: String { "\(client.name) at port \(port)" }

    /// Calls `body` with its bytes, valid for the call.
    @inline(__always) func withBytes<Result>(_ body: (Bytes) -> Result) -> Result {
        withUnsafeBytes(of: (UInt32(port) << 8 | UInt32(client.rawValue)).bigEndian) { raw in
            raw.withMemoryRebound(to: UInt8.self) { body($0) }
        }
    }
}
