import Pipeline
import PipelineWire

/// A set of TLV types.
struct TLVTypes {
    private var bits = InlineArray<4, UInt64>(repeating: 0)

    mutating func insert(_ type: UInt8) { bits[Int(type >> 6)] |= 1 << UInt64(type & 63) }
    func contains(_ type: UInt8) -> Bool { bits[Int(type >> 6)] & 1 << UInt64(type & 63) != 0 }
}

/// What follows the addresses.
extension ProxyV2Filter.Settings {
    /// Adds our own TLVs, with room for the checksum. `written` gets their types.
    func appendOwn(to writer: inout ProxyV2Writer, _ view: ConnectionView, _ written: inout TLVTypes) {
        if tlvs.contains(.authority), !view.facts.serverName.isEmpty {
            writer.append(authority: view.facts.serverName)
            written.insert(ProxyTLV.Kind.authority)
        }
        if tlvs.contains(.alpn), let name = onlyProtocol(view) {
            writer.append(ProxyTLV.Kind.alpn, name)
            written.insert(ProxyTLV.Kind.alpn)
        }
        if tlvs.contains(.uniqueID) {
            writer.append(UniqueID(prefix: uniquePrefix, serial: view.facts.serial))
            written.insert(ProxyTLV.Kind.uniqueID)
        }
        if let route = view.facts.route {
            let owner = route.pointee.owner
            append(routeType, route.pointee.id, to: &writer, &written)
            // The env's id alone is ambiguous: another org may have the same.
            if let envType {
                writer.append(
                    envType, org: owner.pointee.org.buffer, app: owner.pointee.app.buffer, env: owner.pointee.env.buffer
                )
                written.insert(envType)
            }
            append(orgType, owner.pointee.org, to: &writer, &written)
        }
        if tlvs.contains(.checksum) { writer.appendChecksum() }
    }

    private func append(
        _ type: UInt8?, _ id: FrozenText, to writer: inout ProxyV2Writer, _ written: inout TLVTypes
    ) {
        guard let type else { return }
        writer.append(type, id.buffer)
        written.insert(type)
    }

    /// Adds the TLVs of the accepted header unchanged, except types that we have written ourselves, the checksum of
    /// that header, and padding.
    func appendForeign(to writer: inout ProxyV2Writer, _ view: ConnectionView, except written: TLVTypes) {
        for tlv in foreign(view) where isPassed(tlv, written) { writer.append(tlv.type, tlv.value) }
    }

    private func isPassed(_ tlv: ProxyTLV, _ written: TLVTypes) -> Bool {
        tlv.type != ProxyTLV.Kind.crc32c && tlv.type != ProxyTLV.Kind.noop && !written.contains(tlv.type)
    }

    /// Empty if the bytes are not there.
    private func foreign(_ view: ConnectionView) -> ProxyTLVs {
        let start = Int(view.facts.tlvOffset)
        let end = start + Int(view.facts.tlvLength)
        guard end <= view.bytes.count else { return ProxyTLVs(UnsafeBufferPointer(start: nil, count: 0)) }
        return ProxyTLVs(UnsafeBufferPointer(rebasing: view.bytes[start..<end]))
    }

    /// The client's ALPN protocol if it offers exactly one. Of several, the server's choice is not known yet.
    private func onlyProtocol(_ view: ConnectionView) -> UnsafeBufferPointer<UInt8>? {
        let start = Int(view.facts.alpnOffset)
        let end = start + Int(view.facts.alpnLength)
        guard end > start, end <= view.facts.alpnRecordEnd, end <= view.bytes.count else { return nil }
        // One length byte, and a name that fills the rest of the list.
        guard start + 1 + Int(view.bytes[start]) == end, end > start + 1 else { return nil }
        return UnsafeBufferPointer(rebasing: view.bytes[start + 1..<end])
    }

    /// What was sent, for `explain`.
    func explainTLVs(_ view: ConnectionView) -> [String] {
        var all: [String] = []
        if tlvs.contains(.authority), !view.facts.serverName.isEmpty {
            all.append("authority \(view.facts.serverName.string)")
        }
        if tlvs.contains(.alpn), let name = onlyProtocol(view) {
            all.append("alpn \(String(decoding: name, as: UTF8.self))")
        }
        if tlvs.contains(.uniqueID) { all.append("a unique id") }
        if let route = view.facts.route {
            let owner = route.pointee.owner
            let ids = [
                ("route", routeType, route.pointee.id.string), ("env", envType, owner.pointee.name.path),
                ("org", orgType, owner.pointee.org.string),
            ]
            for (name, type, id) in ids where type != nil { all.append("\(name) \(id)") }
        }
        if tlvs.contains(.checksum) { all.append("a checksum") }
        guard tlvs.contains(.passThrough) else { return all }
        var written = TLVTypes()
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: Prelude.capacity) { memory in
            var writer = ProxyV2Writer(localIn: memory)
            appendOwn(to: &writer, view, &written)
        }
        let passed = foreign(view).filter { isPassed($0, written) }.count
        all.append("\(passed) of the sender's TLVs")
        return all
    }
}
