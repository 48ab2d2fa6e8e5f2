internal import CHost
import VMCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// The terminal that a guest's console is on.
///
/// In raw mode every key goes to the guest, Ctrl-C and Ctrl-Z too. The terminal is given back on every way out of
/// the process: `restore`, `exit`, a signal that ends or stops it, a crash, and SIGKILL, which no process can
/// handle: for that a child process waits at a pipe whose other end only this process holds, and gives the
/// terminal back when that end closes without a word.
public enum Terminal {
    /// Rows and columns, in character cells.
    public struct Size: Hashable, Sendable {
        public let rows: Int
        public let columns: Int
        public init(rows: Int, columns: Int) {
            self.rows = rows
            self.columns = columns
        }
    }

    /// The terminal could not be put into raw mode.
    public struct Failure: ReportableError, Hashable {
        public let errno: Int32
        public var exitStatus: ExitStatus { .unavailable }
        public var description: String { "the terminal cannot be put into raw mode: \(HostError.message(errno))" }
    }

    /// Whether the descriptor is a terminal.
    public static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

    /// Whether this process holds a terminal in raw mode now.
    public static var isRaw: Bool { chost_terminal_is_raw() }

    /// Puts a terminal into raw mode. Input typed earlier is kept. Call it early: it forks, and a small process forks faster.
    ///
    /// - Parameters:
    ///   - descriptor: an open terminal, such as standard input.
    ///   - endingOnSignals: give the terminal back and die at SIGTERM, SIGINT, SIGHUP and SIGQUIT. Pass false
    ///     where the caller handles those and ends in an orderly way.
    ///   - withOutput: what is shown is the guest's alone, line ends too. Pass false where other processes print there: a program
    ///     that the output is piped into, say, which ends its lines with a line feed.
    /// - Throws: `Failure` where the descriptor is no terminal.
    /// - Side effects: signal handlers, where the signal's action was the default; one child process.
    public static func makeRaw(_ descriptor: Int32, endingOnSignals: Bool = true, withOutput: Bool = true) throws(Failure) {
        let result = chost_terminal_raw(descriptor, endingOnSignals, withOutput)
        guard result == 0 else { throw Failure(errno: -result) }
    }

    /// Gives the terminal back. Harmless at any time and any number of times.
    public static func restore() { chost_terminal_restore() }

    /// The terminal's size; nil where it has none, or says 0.
    public static func size(of descriptor: Int32) -> Size? {
        var size = winsize()
        guard unsafe ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_row > 0, size.ws_col > 0 else {
            return nil
        }
        return Size(rows: Int(size.ws_row), columns: Int(size.ws_col))
    }

    /// What Ctrl-A ? shows. The lines end in CR LF, because a raw terminal adds no CR of its own.
    public static let help = """
        \r
        Windhover: Ctrl-A is the escape key\r
          Ctrl-A x       leave: the guest is stopped at once\r
          Ctrl-A p       press the power button: a guest that listens to it shuts down\r
          Ctrl-A b       send a break: Linux takes the key after it for a SysRq\r
          Ctrl-A - or +  have the guest make do with less memory, or more (--balloon)\r
          Ctrl-A ?       this help (also Ctrl-A h)\r
          Ctrl-A Ctrl-A  send one Ctrl-A to the guest\r
        Ctrl-A with any other key goes to the guest as typed.\r

        """
}
