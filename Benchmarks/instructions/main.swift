import Glibc

// Runs one case so many times, under `valgrind --tool=callgrind --toggle-collect=*measured*`: what is collected is what the
// repetitions took, and no setup. Benchmarks/driver/instructions.py does that for each case, and takes off what the loop itself costs.
//
//     instructions list
//     instructions CASE COUNT

/// What is measured. Set once, before ``measured(_:)``.
nonisolated(unsafe) var operation: @Sendable (Int) -> Int = { _ in 0 }

/// By this name callgrind knows when to count.
@inline(never)
func measured(_ count: Int) -> Int {
    let body = operation
    var sum = 0
    for number in 0..<count { sum &+= body(number) }
    return sum
}

func fail(_ text: String) -> Never {
    let line = "instructions: \(text)\n"
    _ = line.withCString { write(STDERR_FILENO, $0, strlen($0)) }
    exit(2)
}

let words = CommandLine.arguments
if words.count == 2, words[1] == "list" {
    for name in cases.map(\.name) { print(name) }
    exit(0)
}
guard words.count == 3, let count = Int(words[2]), count > 0 else {
    fail("usage: instructions list | instructions CASE COUNT")
}
guard let chosen = cases.first(where: { $0.name == words[1] }) else { fail("no case is named \(words[1])") }
guard let made = chosen.make() else { fail("\(chosen.name): what it measures could not be made") }
operation = made
let expected = measured(1)
guard expected != wrong else { fail("\(chosen.name): a wrong answer") }
print(chosen.name, measured(count))
