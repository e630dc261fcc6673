import Pipeline

/// An instance as almost all are written: see ``FlatRoute``.
struct FlatInstance {
    private(set) var id = 0..<0
    private(set) var env = 0..<0
    private(set) var process = 0..<0
    private(set) var node = 0..<0
    private(set) var address: IPAddress?
    private(set) var ipv4: IPAddress?
    private(set) var status: InstanceStatus?
    private(set) var grace: UInt64 = 10
    private(set) var weight: UInt64 = 1
    private(set) var maxConnections: UInt64 = 0
    private(set) var priority: UInt64 = 0

    /// What it must have, of ``StateBuilder/instanceKeys``: all of the first six but `node_id`.
    private static let required: UInt64 = 0b10_1111

    /// The instance that comes next.
    static func instance(_ flat: inout JSONFlat) -> FlatInstance? {
        var instance = FlatInstance()
        let isWhole = flat.fields(StateBuilder.instanceKeys, required: required) { field, flat in
            instance.take(field, &flat)
        }
        return isWhole ? instance : nil
    }

    /// The value of a field. False: it is not as almost all are.
    private mutating func take(_ field: Int, _ flat: inout JSONFlat) -> Bool {
        switch field {
        case 0: return flat.name(&id)
        case 1: return flat.name(&env)
        case 2: return flat.name(&process)
        case 3: return FlatInstance.address(&flat, v4: false, &address)
        case 4: return flat.name(&node)
        case 5: return takeStatus(&flat)
        case 6: return FlatInstance.whole(&flat, 0...86400, &grace)
        case 7: return FlatInstance.whole(&flat, 0...UInt64(BackendSpec.weightLimit), &weight)
        case 8: return FlatInstance.whole(&flat, 1...UInt64(UInt32.max), &maxConnections)
        case 9: return flat.word("null") || FlatInstance.address(&flat, v4: true, &ipv4)
        case 10: return flat.word("null")
        case 11: return FlatInstance.whole(&flat, 0...UInt64(BackendSpec.backupPriority), &priority)
        default: return false
        }
    }

    private mutating func takeStatus(_ flat: inout JSONFlat) -> Bool {
        guard let found = flat.string() else { return false }
        let text = flat.text(found)
        status = InstanceStatus.allCases.first { text.elementsEqual($0.name.utf8) }
        return status != nil
    }

    private static func address(_ flat: inout JSONFlat, v4: Bool, _ address: inout IPAddress?) -> Bool {
        guard let found = flat.string(), let value = IPAddress(ascii: flat.text(found)), value.isIPv4 == v4,
            !value.isUnspecified
        else { return false }
        address = value
        return true
    }

    /// A number, or null for what it is without one.
    private static func whole(_ flat: inout JSONFlat, _ range: ClosedRange<UInt64>, _ value: inout UInt64) -> Bool {
        if flat.word("null") { return true }
        guard let found = flat.whole(to: range.upperBound), range.contains(found) else { return false }
        value = found
        return true
    }
}

extension StateBuilder {
    /// - Parameter place: of the object. False: nothing was read.
    mutating func readFlatInstance(_ reader: inout JSONReader, at place: Place) -> Bool {
        var flat = JSONFlat(reader)
        guard reader.depth < JSONReader.depthLimit, let instance = FlatInstance.instance(&flat),
            let address = instance.address, let status = instance.status,
            let id = document.text.append(flat.text(instance.id)),
            let node = instance.node.isEmpty ? .empty : document.text.append(flat.text(instance.node)),
            let env = document.symbols.intern(flat.text(instance.env)),
            let process = document.symbols.intern(flat.text(instance.process))
        else { return false }
        flat.give(to: &reader)
        append(
            InstanceObject(
                id: id, env: env, processType: process, address: address, node: node, status: status,
                drainGraceSeconds: UInt32(clamping: instance.grace), weight: UInt16(clamping: instance.weight),
                maxConnections: UInt32(clamping: instance.maxConnections),
                priority: UInt8(clamping: instance.priority), ipv4: instance.ipv4, interface: .empty, place: place))
        return true
    }
}
