import Windhover

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Fetches an image with a bar on a terminal, a line elsewhere.
func fetch(_ name: String, into store: ImageStore, update: Bool = false) throws -> Image {
    try showing(name, "fetching the image \(name) from this host's package sources") { isCancelled, progress in
        try store.fetch(name, update: update, isCancelled: isCancelled, progress: progress)
    }
}

/// Runs something that takes its time, with a bar on a terminal, a line elsewhere.
///
/// Ctrl-C and the other signals that end a program stop what runs for it, and then this, with nothing left behind.
func showing<Result>(
    _ name: String, _ what: String,
    _ body: (_ isCancelled: @escaping () -> Bool, _ progress: @escaping (FetchProgress) -> Void) throws -> Result
) throws -> Result {
    try EndingSignals.caught {
        do {
            return try showingBar(name, what, body)
        } catch ImageError.interrupted {
            Hover.complain(ImageError.interrupted.description)
            let number = EndingSignals.pending
            GuestRun.die(of: number == 0 ? SIGINT : number)
        }
    }
}

private func showingBar<Result>(
    _ name: String, _ what: String,
    _ body: (_ isCancelled: @escaping () -> Bool, _ progress: @escaping (FetchProgress) -> Void) throws -> Result
) throws -> Result {
    let isCancelled = { EndingSignals.pending != 0 }
    let output = STDERR_FILENO
    guard Terminal.isTerminal(output) else {
        StandardError.write("hover: \(what)\n")
        return try body(isCancelled) { _ in }
    }
    var shown = ""
    defer { StandardError.write("\r\u{1B}[K") }
    return try body(isCancelled) { progress in
        let line = ProgressBar.line(name: name, progress, columns: Terminal.size(of: output)?.columns ?? 80)
        guard line != shown else { return }
        shown = line
        StandardError.write("\r\(line)\u{1B}[K")
    }
}

/// One line that shows how far something is.
enum ProgressBar {
    /// `linux [#########...........]  45%  downloading`, in less than `columns` characters.
    static func line(name: String, _ progress: FetchProgress, columns: Int) -> String {
        let fraction = min(1, max(0, progress.fraction))
        let percent = String(Int(fraction * 100))
        let number = String(repeating: " ", count: 3 - percent.count) + percent + "%"
        let fixed = name.count + number.count + progress.step.rawValue.count + 6
        let width = min(40, columns - 1 - fixed)
        guard width >= 5 else { return String("\(name) \(number)".prefix(max(0, columns - 1))) }
        let filled = Int(fraction * Double(width))
        let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled)
        return "\(name) [\(bar)] \(number)  \(progress.step.rawValue)"
    }
}
