/// Writes objects as a whole document (`pipelined.state/1`), a piece at a time: what ``StateUpdate`` reads out of it is
/// what was put in. Each object is on lines of its own.
public struct StateExport {
    private var bytes: [UInt8] = []
    /// The list that is open, or was last.
    private var list: StateKind?
    private var isOpen = false

    /// - Parameters:
    ///   - actor: visible ASCII; empty: none.
    ///   - needs: the words that a reader of the document must know.
    public init(revision: UInt64?, actor: String, needs: [String] = []) {
        bytes += Array("{\"format\": \"\(StateDocument.format)\"".utf8)
        if let revision { bytes += Array(", \"revision\": \(revision)".utf8) }
        if !actor.isEmpty { bytes += Array(", \"actor\": ".utf8) + Array(StateExport.quoted(actor).utf8) }
        if !needs.isEmpty {
            bytes += Array(", \"needs\": [\(needs.map(StateExport.quoted).joined(separator: ","))]".utf8)
        }
    }

    /// Adds an object's text, or several joined by commas. Kinds come in the order of ``StateKind``, objects in that of
    /// their ids.
    /// - Returns: false: this kind's list is over, and nothing was added.
    public mutating func add(_ kind: StateKind, _ text: UnsafeRawBufferPointer) -> Bool {
        if let list, kind.rawValue < list.rawValue || (kind == list && !isOpen) { return false }
        if kind == list {
            bytes += [0x2C, 0x0A]
        } else {
            close()
            addEmpty(before: kind)
            bytes += Array(",\n\"\(kind.list)\": [\n".utf8)
            (list, isOpen) = (kind, true)
        }
        bytes.append(contentsOf: text)
        return true
    }

    /// After the last object.
    public mutating func end() {
        close()
        addEmpty(before: nil)
        bytes += Array("}\n".utf8)
        (list, isOpen) = (.hostname, false)
    }

    /// How many bytes wait to be taken.
    public var count: Int { bytes.count }

    /// What has been written since the last call.
    public mutating func take() -> [UInt8] {
        defer { bytes = [] }
        return bytes
    }

    private mutating func close() {
        if isOpen { bytes += [0x0A, 0x5D] }
        isOpen = false
    }

    /// The lists that a document must have, of those that were passed over.
    private mutating func addEmpty(before next: StateKind?) {
        for kind in [StateKind.env, .instance, .route]
        where kind.rawValue > list?.rawValue ?? 0 && kind.rawValue < next?.rawValue ?? .max {
            bytes += Array(",\n\"\(kind.list)\": []".utf8)
        }
    }

    /// A string of JSON: ids and actors have visible characters alone, and any other is a space.
    static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            if scalar == "\"" || scalar == "\\" { quoted.append("\\") }
            quoted.unicodeScalars.append(scalar.value < 0x20 ? " " : scalar)
        }
        return quoted + "\""
    }
}
