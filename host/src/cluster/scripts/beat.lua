-- Counts a beat of a node. If the list has another under its number or none, the node was given up, unless the run is
-- another: then Redis lost all.
-- KEYS: nodes, beats, run, the revision of the plugins. ARGV: the node's number, its name as it was registered.
local run = redis.call('GET', KEYS[3])
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return {0, run}
end
redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
return {1, run, redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), redis.call('GET', KEYS[4]) or '0'}
