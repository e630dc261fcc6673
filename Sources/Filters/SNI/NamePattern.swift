import CPCRE2
import Pipeline

/// One regular expression over server names, compiled by PCRE2. Immutable: any number of workers match with it, each
/// with its own ``PatternScratch``. The owner of the settings frees it.
struct NamePattern: @unchecked Sendable {
    /// The longest pattern, in bytes.
    static let lengthLimit = 1024
    /// The largest compiled pattern, in bytes: what nested repeats multiply.
    static let compiledLimit = 32 << 10
    /// PCRE2's match limit for one name; reasonable patterns stay far below.
    static let matchLimit: UInt32 = 10_000
    /// PCRE2's depth limit without JIT.
    static let depthLimit: UInt32 = 1000
    /// PCRE2's heap limit without JIT, in KiB.
    static let heapLimit: UInt32 = 128
    /// The JIT's stack of one worker, in bytes.
    static let stackSize = 32 << 10

    enum Answer: Equatable {
        case yes, no
        /// A limit ended the search: the result is unknown.
        case limit
    }

    let code: OpaquePointer

    /// - Throws: what is wrong with `text` and where, or that it is too large.
    /// - Parameter withJIT: false: interpreted, as where PCRE2 has no JIT; for tests.
    init(_ text: String, withJIT: Bool = true) throws(PatternProblem) {
        guard !text.isEmpty else { throw PatternProblem("the pattern is empty", "write a pattern for the whole name") }
        guard text.utf8.count <= NamePattern.lengthLimit else {
            throw PatternProblem(
                "the pattern has \(text.utf8.count) bytes; the limit is \(NamePattern.lengthLimit)",
                "use several patterns, or a `names` block")
        }
        // A pattern matches a whole ASCII name, without case. `(*UTF)` and \C are refused.
        let options =
            UInt32(PCRE2_ANCHORED) | UInt32(PCRE2_ENDANCHORED) | UInt32(PCRE2_CASELESS) | UInt32(PCRE2_DOLLAR_ENDONLY)
            | UInt32(PCRE2_NEVER_UTF) | UInt32(PCRE2_NEVER_UCP) | UInt32(PCRE2_NEVER_BACKSLASH_C)
        var error: Int32 = 0
        var offset = 0
        var copy = text
        let compiled = copy.withUTF8 { pcre2_compile_8($0.baseAddress, $0.count, options, &error, &offset, nil) }
        guard let compiled else {
            throw PatternProblem(
                "the pattern doesn't compile: \(NamePattern.message(error)), at byte \(offset + 1)",
                "correct it; `man pcre2pattern` has the syntax")
        }
        let size = max(
            NamePattern.info(compiled, PCRE2_INFO_SIZE), NamePattern.info(compiled, PCRE2_INFO_FRAMESIZE) * 16)
        guard size <= NamePattern.compiledLimit else {
            pcre2_code_free_8(compiled)
            throw PatternProblem(
                "the compiled pattern is too large: \(size) bytes; the limit is \(NamePattern.compiledLimit)",
                "use smaller counts in `{...}` and fewer groups")
        }
        // Without a JIT it is interpreted, under the same limits.
        if withJIT { _ = pcre2_jit_compile_8(compiled, UInt32(PCRE2_JIT_COMPLETE)) }
        code = compiled
    }

    func matches(_ name: UnsafeBufferPointer<UInt8>, _ scratch: PatternScratch) -> Answer {
        guard let base = name.baseAddress, let data = scratch.data, let context = scratch.context else { return .limit }
        let result = pcre2_match_8(code, base, name.count, 0, 0, data, context)
        // 0: it matched, without room for captures, which are not used.
        if result >= 0 { return .yes }
        return result == PCRE2_ERROR_NOMATCH ? .no : .limit
    }

    func deallocate() { pcre2_code_free_8(code) }

    private static func info(_ code: OpaquePointer, _ what: Int32) -> Int {
        var size = 0
        return pcre2_pattern_info_8(code, UInt32(what), &size) == 0 ? size : 0
    }

    private static func message(_ error: Int32) -> String {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 256) { memory in
            let count = pcre2_get_error_message_8(error, memory.baseAddress, memory.count)
            guard count >= 0 else { return "unknown PCRE2 code \(error)" }
            return String(decoding: memory[..<Int(count)], as: UTF8.self)
        }
    }
}

/// What is wrong with a pattern, and what to do.
struct PatternProblem: Error {
    let problem: String
    let remedy: String
    init(_ problem: String, _ remedy: String) {
        self.problem = problem
        self.remedy = remedy
    }
}

/// One worker's match memory, made with its worker memory, so that JIT matching does not allocate. The interpreter
/// allocates its frames at the first match and keeps them, at most ``NamePattern/heapLimit``.
public struct PatternScratch {
    let data: OpaquePointer?
    let context: OpaquePointer?
    /// Frees them with the last copy; nothing on the data path touches it.
    private let memory: PatternMemory?

    /// - Parameter isNeeded: false, without patterns: nothing is made.
    init(isNeeded: Bool) {
        let memory = isNeeded ? PatternMemory() : nil
        self.memory = memory
        data = memory?.data
        context = memory?.context
    }
}

private final class PatternMemory {
    let data = pcre2_match_data_create_8(1, nil)
    let context = pcre2_match_context_create_8(nil)
    let stack = pcre2_jit_stack_create_8(NamePattern.stackSize, NamePattern.stackSize, nil)

    init() {
        guard let context else { return }
        pcre2_set_match_limit_8(context, NamePattern.matchLimit)
        pcre2_set_depth_limit_8(context, NamePattern.depthLimit)
        pcre2_set_heap_limit_8(context, NamePattern.heapLimit)
        pcre2_jit_stack_assign_8(context, nil, stack.map { UnsafeMutableRawPointer($0) })
    }

    deinit {
        pcre2_match_data_free_8(data)
        pcre2_match_context_free_8(context)
        pcre2_jit_stack_free_8(stack)
    }
}
