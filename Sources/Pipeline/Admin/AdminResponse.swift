import Pipeline
import PipelineNode
import PipelineText

/// A response in pieces, so that a document of any size costs one piece of memory. Expensive reports are prepared in
/// batches.
struct AdminResponse {
    var first: [UInt8]
    /// The next piece; nil: that was all.
    var more: (() -> [UInt8]?)?
    /// Works until about that instant; returns the response once it is complete.
    var prepare: ((_ until: Instant) -> AdminResponse?)?
    /// What the client sends behind its request is received first; nil: nothing is.
    var upload: StateUpload?
    /// Called once, when all of ``upload`` is there. What it is given takes the response, at once or later, on the
    /// control thread.
    var whole: ((_ respond: @escaping (AdminResponse) -> Void) -> Void)?

    /// What follows the request are pushes, each with its answer; nil: nothing of that is.
    var stream: PushStream?

    init(_ bytes: [UInt8], more: (() -> [UInt8]?)? = nil) {
        first = bytes
        self.more = more
    }

    init(preparing prepare: @escaping (_ until: Instant) -> AdminResponse?) {
        first = []
        self.prepare = prepare
    }

    init(stream: PushStream) {
        first = []
        self.stream = stream
    }

    init(
        receiving upload: StateUpload?, then whole: @escaping (_ respond: @escaping (AdminResponse) -> Void) -> Void
    ) {
        first = []
        self.upload = upload
        self.whole = whole
    }
}

extension AdminResponse {
    /// `{"error":"…","remedy":"…"}`.
    static func failure(_ problem: String, _ remedy: String) -> [UInt8] {
        var line = JSONLine()
        line.open()
        line.field("error", problem)
        line.field("remedy", remedy)
        line.close()
        line.newline()
        return line.bytes
    }

    static func text(_ text: String, exit: Int = 0) -> AdminResponse { AdminResponse(Array("\(exit)\n\(text)".utf8)) }
}
