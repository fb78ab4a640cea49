//! Places on the Earth as scores of sorted sets: geohashes of 52 bits, distances, and the cells in
//! which to look for what is near. Knows nothing of keys; the commands GEO… call it.
//!
//! A geohash halves longitude and latitude in turn; here each has 26 bits, the latitude the lower
//! ones. Cells, distances (haversine on a sphere) and the order of the cells are those of Redis,
//! since clients see them.

use std::f64::consts::PI;
use std::ops::Range;

const STEPS: u8 = 26;
const LONGITUDE_MAX: f64 = 180.0;
/// Where the square of the Web Mercator projection ends.
const LATITUDE_MAX: f64 = 85.051_128_78;
const EARTH_RADIUS_METERS: f64 = 6_372_797.560_856;
/// Half of the projection's width.
const MERCATOR_MAX_METERS: f64 = 20_037_726.37;

/// The bits of a score. Those of a score that is no place are what Redis sees on its usual machines.
fn bits(score: f64) -> u64 {
    const MIDDLE: f64 = (1u64 << 63) as f64;
    if score < MIDDLE {
        return score as i64 as u64;
    }
    let rest = score - MIDDLE;
    if rest < MIDDLE { rest as u64 | 1 << 63 } else { 0 }
}

/// A place, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub longitude: f64,
    pub latitude: f64,
}

impl Point {
    /// Whether there is a score for it.
    pub fn is_valid(self) -> bool {
        self.longitude.abs() <= LONGITUDE_MAX && self.latitude.abs() <= LATITUDE_MAX
    }

    /// The middle of the smallest cell that this score stands for.
    pub fn of_score(score: f64) -> Point {
        let cell = Cell::of_bits(bits(score), STEPS);
        let (west, east, south, north) = cell.edges();
        Point {
            longitude: ((west + east) / 2.0).clamp(-LONGITUDE_MAX, LONGITUDE_MAX),
            latitude: ((south + north) / 2.0).clamp(-LATITUDE_MAX, LATITUDE_MAX),
        }
    }

    /// Of a valid place.
    pub fn score(self) -> u64 {
        Cell::around(self, STEPS).bits()
    }

    /// The eleven letters by which the rest of the world knows it. Their latitudes go up to 90.
    pub fn geohash(self) -> [u8; 11] {
        const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let part = |at: f64, max: f64| ((at + max) / (2.0 * max) * f64::from(1 << STEPS)) as u32;
        let bits = interleaved(part(self.latitude, 90.0), part(self.longitude, LONGITUDE_MAX));
        std::array::from_fn(|at| match at {
            // There are no bits left for the last one.
            10 => LETTERS[0],
            _ => LETTERS[(bits >> (52 - 5 * (at + 1))) as usize & 31],
        })
    }

    /// Meters.
    pub fn distance(self, other: Point) -> f64 {
        let v = ((other.longitude.to_rad() - self.longitude.to_rad()) / 2.0).sin();
        if v == 0.0 {
            return distance_of_latitudes(self.latitude, other.latitude);
        }
        let (mine, theirs) = (self.latitude.to_rad(), other.latitude.to_rad());
        let u = ((theirs - mine) / 2.0).sin();
        let a = u * u + mine.cos() * theirs.cos() * v * v;
        2.0 * EARTH_RADIUS_METERS * a.sqrt().asin()
    }
}

trait Degrees {
    fn to_rad(self) -> f64;
}

impl Degrees for f64 {
    /// Rounded as Redis does.
    fn to_rad(self) -> f64 {
        self * (PI / 180.0)
    }
}

fn degrees(radians: f64) -> f64 {
    radians / (PI / 180.0)
}

fn distance_of_latitudes(one: f64, other: f64) -> f64 {
    EARTH_RADIUS_METERS * (other.to_rad() - one.to_rad()).abs()
}

/// What is looked for, in meters.
#[derive(Clone, Debug)]
pub enum Shape {
    Circle { center: Point, radius: f64 },
    Box { center: Point, width: f64, height: f64 },
    Polygon(Polygon),
}

/// At least three corners; its edges are straight on a map of degrees.
#[derive(Clone, Debug)]
pub struct Polygon {
    corners: Vec<Point>,
    center: Point,
}

impl Polygon {
    pub fn new(corners: Vec<Point>) -> Polygon {
        let count = corners.len() as f64;
        let center = Point {
            longitude: corners.iter().map(|corner| corner.longitude).sum::<f64>() / count,
            latitude: corners.iter().map(|corner| corner.latitude).sum::<f64>() / count,
        };
        Polygon { corners, center }
    }

    /// Whether a ray from the place crosses the edges an odd number of times.
    fn contains(&self, point: Point) -> bool {
        let mut inside = false;
        let mut last = self.corners[self.corners.len() - 1];
        for &corner in &self.corners {
            if (corner.latitude > point.latitude) != (last.latitude > point.latitude) {
                let slope = (last.longitude - corner.longitude) / (last.latitude - corner.latitude);
                let crossing = slope * (point.latitude - corner.latitude) + corner.longitude;
                inside ^= point.longitude < crossing;
            }
            last = corner;
        }
        inside
    }
}

impl Shape {
    /// From where distances are measured.
    pub fn center(&self) -> Point {
        match self {
            Shape::Circle { center, .. } | Shape::Box { center, .. } => *center,
            Shape::Polygon(polygon) => polygon.center,
        }
    }

    /// The distance of a place from the center, if it is inside.
    pub fn distance_inside(&self, point: Point) -> Option<f64> {
        let center = self.center();
        match self {
            Shape::Circle { radius, .. } => {
                Some(center.distance(point)).filter(|distance| distance <= radius)
            }
            Shape::Box { width, height, .. } => {
                // Latitudes are the cheaper ones.
                if distance_of_latitudes(point.latitude, center.latitude) > height / 2.0 {
                    return None;
                }
                let beside = Point { latitude: point.latitude, ..center };
                if point.distance(beside) > width / 2.0 {
                    return None;
                }
                Some(center.distance(point))
            }
            Shape::Polygon(polygon) => polygon.contains(point).then(|| center.distance(point)),
        }
    }

    /// West, south, east and north of it.
    fn bounds(&self) -> (f64, f64, f64, f64) {
        let (center, width, height) = match self {
            Shape::Circle { center, radius } => (center, *radius, *radius),
            Shape::Box { center, width, height } => (center, width / 2.0, height / 2.0),
            Shape::Polygon(polygon) => {
                let start = (f64::MAX, f64::MAX, f64::MIN, f64::MIN);
                return polygon.corners.iter().fold(start, |(west, south, east, north), corner| {
                    (
                        west.min(corner.longitude),
                        south.min(corner.latitude),
                        east.max(corner.longitude),
                        north.max(corner.latitude),
                    )
                });
            }
        };
        let up = degrees(height / EARTH_RADIUS_METERS);
        // Meridians are closest to each other at the edge that is nearer to a pole.
        let edge = if center.latitude < 0.0 { center.latitude - up } else { center.latitude + up };
        let aside = degrees(width / EARTH_RADIUS_METERS / edge.to_rad().cos());
        (
            center.longitude - aside,
            center.latitude - up,
            center.longitude + aside,
            center.latitude + up,
        )
    }

    /// How far from the center it reaches.
    fn reach_meters(&self) -> f64 {
        match self {
            Shape::Circle { radius, .. } => *radius,
            Shape::Box { width, height, .. } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
            Shape::Polygon(polygon) => {
                let distances =
                    polygon.corners.iter().map(|corner| polygon.center.distance(*corner));
                distances.fold(0.0, f64::max)
            }
        }
    }

    /// Ranges of scores in which everything inside is found, with much else. They are to be looked
    /// through in this order; at most nine.
    pub fn score_ranges(&self) -> Vec<Range<u64>> {
        let (west, south, east, north) = self.bounds();
        let center = self.center();
        let mut steps = steps_for(self.reach_meters(), center.latitude);
        let mut cell = Cell::around(center, steps);
        let falls_short = {
            let (.., north_end) = cell.moved(0, 1).edges();
            let (_, _, south_end, _) = cell.moved(0, -1).edges();
            let (_, east_end, ..) = cell.moved(1, 0).edges();
            let (west_end, ..) = cell.moved(-1, 0).edges();
            north_end < north || south_end > south || east_end < east || west_end > west
        };
        if steps > 1 && falls_short {
            steps -= 1;
            cell = Cell::around(center, steps);
        }
        // Neighbours on a side where the shape does not leave the cell are of no use.
        let (cell_west, cell_east, cell_south, cell_north) = cell.edges();
        let is_useful = |(aside, up): &(i32, i32)| {
            steps < 2
                || !(*up < 0 && cell_south < south
                    || *up > 0 && cell_north > north
                    || *aside < 0 && cell_west < west
                    || *aside > 0 && cell_east > east)
        };
        let around = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
        let mut cells: Vec<Cell> =
            around.into_iter().filter(is_useful).map(|(aside, up)| cell.moved(aside, up)).collect();
        // Around the whole Earth neighbours meet.
        let mut seen = Vec::with_capacity(cells.len());
        cells.retain(|cell| {
            let is_new = !seen.contains(cell);
            seen.push(*cell);
            is_new
        });
        cells.into_iter().map(Cell::scores).collect()
    }
}

/// Cells so small that nine of them cover what reaches so far.
fn steps_for(mut meters: f64, latitude: f64) -> u8 {
    if meters == 0.0 {
        return STEPS;
    }
    let mut steps = 1_i32;
    while meters < MERCATOR_MAX_METERS {
        meters *= 2.0;
        steps += 1;
    }
    steps -= 2;
    // Towards the poles cells become narrow.
    if latitude.abs() > 66.0 {
        steps -= 1;
        if latitude.abs() > 80.0 {
            steps -= 1;
        }
    }
    steps.clamp(1, i32::from(STEPS)) as u8
}

/// One of 4^steps parts of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    x: u32,
    y: u32,
    steps: u8,
}

impl Cell {
    fn around(point: Point, steps: u8) -> Cell {
        let scale = (1_u64 << steps) as f64;
        let part = |at: f64, max: f64| ((at + max) / (2.0 * max) * scale) as u32;
        Cell {
            x: part(point.longitude, LONGITUDE_MAX),
            y: part(point.latitude, LATITUDE_MAX),
            steps,
        }
    }

    fn of_bits(bits: u64, steps: u8) -> Cell {
        Cell { x: every_other(bits >> 1), y: every_other(bits), steps }
    }

    fn bits(self) -> u64 {
        interleaved(self.y, self.x)
    }

    /// The one so many cells to the east and north.
    fn moved(self, aside: i32, up: i32) -> Cell {
        let mask = (1 << self.steps) - 1;
        // At the very edge of the map a place has a number too many, and keeps it.
        let step = |at: u32, by: i32| match by {
            0 => at,
            _ => at.wrapping_add_signed(by) & mask,
        };
        Cell { x: step(self.x, aside), y: step(self.y, up), ..self }
    }

    /// West, east, south and north, degrees.
    fn edges(self) -> (f64, f64, f64, f64) {
        let scale = (1_u64 << self.steps) as f64;
        let edge = |at: f64, max: f64| -max + at / scale * (2.0 * max);
        let (x, y) = (f64::from(self.x), f64::from(self.y));
        (
            edge(x, LONGITUDE_MAX),
            edge(x + 1.0, LONGITUDE_MAX),
            edge(y, LATITUDE_MAX),
            edge(y + 1.0, LATITUDE_MAX),
        )
    }

    fn scores(self) -> Range<u64> {
        let shift = 2 * (STEPS - self.steps);
        self.bits() << shift..(self.bits() + 1) << shift
    }
}

/// The bits of both in turn, those of the first lowest.
fn interleaved(low: u32, high: u32) -> u64 {
    spread(low) | spread(high) << 1
}

fn spread(bits: u32) -> u64 {
    let mut bits = u64::from(bits);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

fn every_other(bits: u64) -> u32 {
    let mut bits = bits & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random numbers from 0 to 1.
    fn random(seed: &mut u64) -> f64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*seed >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn place(seed: &mut u64, latitude_max: f64) -> Point {
        Point {
            longitude: (random(seed) * 2.0 - 1.0) * 180.0,
            latitude: (random(seed) * 2.0 - 1.0) * latitude_max,
        }
    }

    #[test]
    fn a_score_is_a_place() {
        let seed = &mut 7;
        for _ in 0..10_000 {
            let point = place(seed, LATITUDE_MAX);
            let found = Point::of_score(point.score() as f64);
            assert!(point.distance(found) < 0.6, "{point:?} is not {found:?}");
            assert_eq!(found.score(), point.score());
        }
        assert_eq!(every_other(spread(0xdead_beef)), 0xdead_beef);
    }

    #[test]
    fn what_is_inside_is_in_the_ranges() {
        let seed = &mut 11;
        for round in 0..3000 {
            let center = place(seed, 80.0);
            let size = 10_f64.powf(random(seed) * 5.5);
            let shape = match round % 3 {
                0 => Shape::Circle { center, radius: size },
                1 => Shape::Box { center, width: size, height: size * random(seed) },
                _ => {
                    let degrees = (size / 111_000.0).min(5.0);
                    let corner = |seed: &mut u64| Point {
                        longitude: (center.longitude + random(seed) * degrees).min(180.0),
                        latitude: (center.latitude + random(seed) * degrees).min(85.0),
                    };
                    let corners = (0..3 + round % 5).map(|_| corner(seed)).collect();
                    Shape::Polygon(Polygon::new(corners))
                }
            };
            let ranges = shape.score_ranges();
            let middle = shape.center();
            for _ in 0..50 {
                let near = Point {
                    longitude: middle.longitude + (random(seed) - 0.5) * size / 30_000.0,
                    latitude: middle.latitude + (random(seed) - 0.5) * size / 50_000.0,
                };
                if near.is_valid() && shape.distance_inside(near).is_some() {
                    let score = near.score();
                    assert!(
                        ranges.iter().any(|range| range.contains(&score)),
                        "{near:?} is in {shape:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn polygons() {
        let corner = |longitude, latitude| Point { longitude, latitude };
        let arrow = Polygon::new(vec![
            corner(0.0, 0.0),
            corner(4.0, 0.0),
            corner(1.0, 1.0),
            corner(0.0, 4.0),
        ]);
        assert!(arrow.contains(corner(0.5, 0.5)));
        assert!(arrow.contains(corner(3.0, 0.2)));
        assert!(!arrow.contains(corner(2.0, 2.0)));
        assert!(!arrow.contains(corner(-0.1, 1.0)));
    }
}
