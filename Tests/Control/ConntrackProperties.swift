import Pipeline
import PipelineExport

/// What must hold of what reads the kernel's conntrack messages, whatever they are. For the tests beside it and for Fuzz/run.
enum ConntrackProperties {
    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        let all = read(UnsafeRawBufferPointer(bytes))
        if all.count > bytes.count / 16 { return "\(all.count) messages in \(bytes.count) bytes" }
        // What has not come yet takes nothing back.
        for count in Set([bytes.count / 2, bytes.count - min(bytes.count, 1), bytes.count - min(bytes.count, 16)]) {
            let some = read(UnsafeRawBufferPointer(UnsafeBufferPointer(rebasing: bytes[..<count])))
            if some[...] != all.prefix(some.count) { return "of \(count) bytes \(some), of all \(all)" }
        }
        for message in all {
            if case .error(let error) = message, !(0..<4096).contains(error) { return "errno \(error)" }
        }
        return nil
    }

    private static func read(_ bytes: UnsafeRawBufferPointer) -> [ConntrackMessage] {
        var messages: [ConntrackMessage] = []
        ConntrackReader.read(bytes) { message, _ in messages.append(message) }
        return messages
    }
}
