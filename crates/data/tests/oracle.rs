//! The number and glob rules against a real redis-server, with random inputs.
//!
//! Ignored by plain `cargo test` because it needs `redis-server` on the path. The oracle stage of
//! `cargo xtask test` installs one and runs it: `cargo test -p data --test oracle -- --ignored`. The seed is printed and can be given back in
//! `ORACLE_SEED`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use data::{LongDouble, ScoreBound, glob, number};
use testkit::server::Server;

/// A redis-server of our own on a free port, ended when dropped.
struct Oracle {
    _server: Server,
    input: BufReader<TcpStream>,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Error(String),
    Text(Vec<u8>),
    List(Vec<Answer>),
}

impl Oracle {
    fn start() -> Oracle {
        let none: [&str; 0] = [];
        let server = Server::start(Path::new("redis-server"), &none).expect("redis-server runs");
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        Oracle { _server: server, input: BufReader::new(stream) }
    }

    fn ask(&mut self, args: &[&[u8]]) -> Answer {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend(format!("${}\r\n", arg.len()).bytes());
            request.extend_from_slice(arg);
            request.extend(b"\r\n");
        }
        self.input.get_mut().write_all(&request).unwrap();
        self.read()
    }

    fn read(&mut self) -> Answer {
        let mut line = Vec::new();
        self.input.read_until(b'\n', &mut line).unwrap();
        let text = String::from_utf8(line[1..line.len() - 2].to_vec()).unwrap();
        match line[0] {
            b'-' => Answer::Error(text),
            b'+' | b':' => Answer::Text(text.into_bytes()),
            b'*' => Answer::List((0..text.parse().unwrap()).map(|_| self.read()).collect()),
            b'$' if text == "-1" => Answer::Text(b"(nil)".to_vec()),
            b'$' => {
                let mut bytes = vec![0; text.parse::<usize>().unwrap() + 2];
                self.input.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                Answer::Text(bytes)
            }
            other => panic!("unknown reply type {other}"),
        }
    }
}

struct Source(u64);

impl Source {
    fn new() -> Source {
        let seed = std::env::var("ORACLE_SEED").map_or_else(
            |_| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
            |seed| seed.parse().expect("ORACLE_SEED is a number"),
        );
        println!("ORACLE_SEED={seed}");
        Source(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 32)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn digits(&mut self, most: usize) -> String {
        (0..self.below(most + 1)).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    /// Mostly numbers, of the sizes people use and of others; now and then no number.
    fn number(&mut self) -> String {
        let sign = ["", "-", "", "-", "", "+"][self.below(6)];
        let body = match self.below(14) {
            0..=3 => format!("{}.{}", self.below(1000), self.digits(4)),
            4 | 5 => format!("{}", self.next() >> self.below(64)),
            6 => format!("{}.{}", self.digits(22), self.digits(22)),
            7 => format!("{}.{}e{}", self.below(10), self.digits(6), self.below(40) as i32 - 20),
            8 => format!("{}e{}", self.digits(3), self.below(800) as i32 - 400),
            9 => format!("0.{}{}", "0".repeat(self.below(20)), self.digits(20)),
            10 => format!("0x{:x}.{:x}p{}", self.below(300), self.below(300), self.below(20)),
            11 => ["inf", "Infinity", "nan", "INF", "infi", "nan(1)"][self.below(6)].to_string(),
            12 => ["", ".", "e", "1e", "1e+", " 1", "1 ", "0x", "1.2.3", "--1"][self.below(10)]
                .to_string(),
            _ => {
                let mut text = format!("{}.{}", self.digits(3), self.digits(3)).into_bytes();
                let at = self.below(text.len());
                text[at] = b"0123456789.eExp+-"[self.below(17)];
                String::from_utf8(text).unwrap()
            }
        };
        format!("{sign}{body}")
    }
}

#[test]
#[ignore = "needs redis-server"]
fn sums_of_long_doubles() {
    let mut oracle = Oracle::start();
    let mut source = Source::new();
    for _ in 0..20_000 {
        let (a, b) = (source.number(), source.number());
        oracle.ask(&[b"SET", b"k", a.as_bytes()]);
        let answer = oracle.ask(&[b"INCRBYFLOAT", b"k", b.as_bytes()]);
        let sum = LongDouble::parse(a.as_bytes())
            .and_then(|x| Some(x.add(LongDouble::parse(b.as_bytes())?)));
        let ours = match sum {
            None => Answer::Error("ERR value is not a valid float".to_string()),
            Some(sum) if !sum.is_finite() => {
                Answer::Error("ERR increment would produce NaN or Infinity".to_string())
            }
            Some(sum) => Answer::Text(sum.to_text()),
        };
        assert_eq!(ours, answer, "{a:?} + {b:?}");
    }
}

#[test]
#[ignore = "needs redis-server"]
fn scores() {
    let mut oracle = Oracle::start();
    let mut source = Source::new();
    for _ in 0..20_000 {
        let text = source.number();
        let answer = oracle.ask(&[b"ZADD", b"z", text.as_bytes(), b"m"]);
        match number::parse_f64(text.as_bytes()) {
            None => assert!(matches!(answer, Answer::Error(_)), "{text:?}: {answer:?}"),
            Some(score) => {
                let Answer::Text(theirs) = oracle.ask(&[b"ZSCORE", b"z", b"m"]) else {
                    panic!("{text:?} is no score: {answer:?}")
                };
                // Redis 7.0 writes %.17g, which reads back exactly; the layout is that of 7.2.
                assert_eq!(number::parse_f64(&theirs), Some(score), "{text:?}");
            }
        }
        let bound = oracle.ask(&[b"ZCOUNT", b"z", text.as_bytes(), b"+inf"]);
        let ours = ScoreBound::parse(text.as_bytes());
        assert_eq!(ours.is_none(), matches!(bound, Answer::Error(_)), "bound {text:?}: {bound:?}");
    }
}

#[test]
#[ignore = "needs redis-server"]
fn globs() {
    let mut oracle = Oracle::start();
    let mut source = Source::new();
    let alphabet = b"aabcAB*?[]^-\\";
    for _ in 0..20_000 {
        let mut text = |most: usize, from: &[u8]| -> Vec<u8> {
            (0..source.below(most + 1)).map(|_| from[source.below(from.len())]).collect()
        };
        let (pattern, mut key) = (text(9, alphabet), text(6, b"aabcAB]-\\"));
        // Redis matches an empty text with no star; we do, on purpose.
        key.push(b'a');
        oracle.ask(&[b"FLUSHALL"]);
        oracle.ask(&[b"SET", &key, b"v"]);
        let answer = oracle.ask(&[b"KEYS", &pattern]);
        let ours = if glob::matches(&pattern, &key, false) {
            Answer::List(vec![Answer::Text(key.clone())])
        } else {
            Answer::List(vec![])
        };
        let shown = (pattern.escape_ascii().to_string(), key.escape_ascii().to_string());
        assert_eq!(ours, answer, "{shown:?}");
    }
}
