/// A datagram of sd_notify(3): lines of `NAME=value`.
package struct NotifyMessage: Equatable, Sendable {
    /// The sender wants its descriptors kept.
    package private(set) var stores = false
    /// The sender wants what is kept under ``name`` closed.
    package private(set) var removes = false
    /// What the descriptors are called, `stored` if nothing that can be a name was said.
    package private(set) var name = NotifyMessage.unnamed
    package private(set) var isReady = false
    package private(set) var isStopping = false
    /// The process that is the service from now on; nil: none was named.
    package private(set) var mainProcess: Int32?
    /// What the manager of the keeper is to know: the other lines.
    package private(set) var rest = ""

    /// The most bytes of one; longer ones are not read.
    package static let limit = 4096
    package static let unnamed = "stored"
    /// The longest name, in bytes.
    private static let longestName = 255

    package init(_ bytes: some Collection<UInt8>) {
        for line in bytes.prefix(NotifyMessage.limit).split(separator: 0x0A) {
            let text = String(decoding: line, as: UTF8.self)
            let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2 else { continue }
            take(String(parts[0]), String(parts[1]), text)
        }
    }

    private mutating func take(_ key: String, _ value: String, _ line: String) {
        switch key {
        case "FDSTORE": stores = value == "1"
        case "FDSTOREREMOVE": removes = value == "1"
        case "FDNAME": name = NotifyMessage.isName(value) ? value : NotifyMessage.unnamed
        case "FDPOLL": break
        case "MAINPID":
            if let number = Int32(value), number > 1 { mainProcess = number }
        default:
            if key == "READY" { isReady = value == "1" }
            if key == "STOPPING" { isStopping = value == "1" }
            rest += rest.isEmpty ? line : "\n" + line
        }
    }

    /// It can stand in `LISTEN_FDNAMES`.
    package static func isName(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= longestName
            && text.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7F && $0 != UInt8(ascii: ":") }
    }
}
