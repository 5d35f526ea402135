-- Counts a beat of a node. Without it in the list the node was given up, unless the run is another: then Redis lost all.
-- KEYS: nodes, beats, run. ARGV: the node's number.
local run = redis.call('GET', KEYS[3])
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return {0, run}
end
redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
return {1, run, redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
